"""How good an action is, by temporal differences: an ensemble Q(s, a) and its target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.core.types import Metrics
from deflow.nn.mlp import Ensemble

Aggregation = Literal["mean", "min"]


class Critic(eqx.Module):
    """An ensemble of action values."""

    nets: Ensemble

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        *,
        count: int = 2,
        layer_norm: bool = True,
        key: PRNGKeyArray,
    ):
        self.nets = Ensemble(
            count, observation_dim + action_dim, 1, hidden, layer_norm=layer_norm, key=key
        )

    def __call__(
        self, observations: Float[Array, "*batch obs"], actions: Float[Array, "*batch act"]
    ) -> Float[Array, "count *batch"]:
        return self.nets(jnp.concatenate([observations, actions], axis=-1))[..., 0]


def aggregate(q: Float[Array, "count *batch"], how: Aggregation) -> Float[Array, "*batch"]:
    """One value out of an ensemble's."""
    return q.mean(0) if how == "mean" else q.min(0)


def td_target(
    rewards: Float[Array, " batch"],
    masks: Float[Array, " batch"],
    next_values: Float[Array, " batch"],
    discount: float | Float[Array, ""],
) -> Float[Array, " batch"]:
    """r + gamma * mask * Q(s', a'): nothing is bootstrapped where the episode truly ended."""
    return rewards + discount * masks * next_values


def td_loss(
    critic: Critic,
    observations: Float[Array, "batch obs"],
    actions: Float[Array, "batch act"],
    target: Float[Array, " batch"],
) -> tuple[Float[Array, ""], Metrics]:
    """E (Q(s, a) - y)^2, averaged over the batch and the ensemble, with the values' statistics."""
    q = critic(observations, actions)
    loss = jnp.mean(jnp.square(q - target))
    metrics = {"loss": loss, "q_mean": q.mean(), "q_min": q.min(), "q_max": q.max()}
    return loss, {f"critic/{name}": value for name, value in metrics.items()}
