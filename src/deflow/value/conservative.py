"""How good an action is, told with caution: values off the data are pushed down, those on it up.

Kumar et al., "Conservative Q-Learning" (CQL), arXiv 2006.04779, eq. 4; Nakamoto et al., "Cal-QL",
arXiv 2303.05479, eq. 5.1: what is at or below a return that was really had is not pushed any more.
As in Cal-QL's official code, by importance sampling over three sets of actions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deflow.core.types import Metrics
from deflow.value.td import Critic, td_loss

HEAVIEST = 1e6
"""The learnt weight is cut here."""


class Candidates(NamedTuple):
    """Actions at which values are pushed down, several for each state."""

    uniform: Float[Array, "some batch act"]
    """Drawn uniformly from the box."""
    policy: Float[Array, "more batch act"]
    """Drawn from the policy at s and at s'."""
    log_probs: Float[Array, "more batch"]
    """Their log-densities where they were drawn."""


def soft_maximum(
    q_uniform: Float[Array, "*count some batch"],
    q_policy: Float[Array, "*count more batch"],
    log_probs: Float[Array, "more batch"],
    action_dim: int,
) -> Float[Array, "*count batch"]:
    """log sum exp(Q - log density): the log of the integral of exp Q over the box, plus the log of
    the number of actions, which the official code leaves in."""
    uniform = action_dim * math.log(0.5)
    weighted = jnp.concatenate([q_uniform - uniform, q_policy - log_probs], axis=-2)
    return jax.nn.logsumexp(weighted, axis=-2)


def excess(
    q_data: Float[Array, "*count batch"],
    q_uniform: Float[Array, "*count some batch"],
    q_policy: Float[Array, "*count more batch"],
    log_probs: Float[Array, "more batch"],
    returns: Float[Array, " batch"],
    action_dim: int,
) -> Float[Array, "*count batch"]:
    """By how much the soft maximum exceeds Q(s, a) of the data.

    The policy's values enter as max(Q, return), so that nothing pushes those under the return; the
    uniform actions' values enter as they are.
    """
    calibrated = jnp.maximum(q_policy, returns)
    return soft_maximum(q_uniform, calibrated, log_probs, action_dim) - q_data


def conservative_loss(
    critic: Critic,
    observations: Float[Array, "batch obs"],
    actions: Float[Array, "batch act"],
    target: Float[Array, " batch"],
    candidates: Candidates,
    returns: Float[Array, " batch"],
    weight: float | Float[Array, ""],
    gap: float | Float[Array, ""] = 0.0,
) -> tuple[Float[Array, ""], Metrics]:
    """sum_i E (Q_i - y)^2 + weight (E excess_i - gap), over the critics i."""
    td, metrics = td_loss(critic, observations, actions, target, over_ensemble="sum")
    count, _, action_dim = candidates.uniform.shape
    both = critic(observations, jnp.concatenate([candidates.uniform, candidates.policy]))
    q_uniform, q_policy = both[:, :count], both[:, count:]
    exceeds = excess(
        critic(observations, actions),
        q_uniform,
        q_policy,
        candidates.log_probs,
        returns,
        action_dim,
    ).mean(-1)
    loss = td + weight * (exceeds - gap).sum()
    found = {"loss": loss, "td_loss": td, "excess": exceeds.mean()}
    found["under_return"] = (q_policy < returns).mean()
    return loss, {**metrics, **{f"critic/{name}": number for name, number in found.items()}}


def learnt_weight(log_weight: Float[Array, ""]) -> Float[Array, ""]:
    """alpha' = exp(.), cut to [0, 1e6]."""
    return jnp.clip(jnp.exp(log_weight), 0, HEAVIEST)


def weight_loss(
    log_weight: Float[Array, ""],
    exceeds: Float[Array, ""],
    gap: float | Float[Array, ""],
    scale: float | Float[Array, ""],
) -> Float[Array, ""]:
    """-alpha' scale (excess - gap): raises the weight while values off the data exceed by more."""
    return -learnt_weight(log_weight) * scale * (jax.lax.stop_gradient(exceeds) - gap)
