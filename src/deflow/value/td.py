"""How good an action is, by temporal differences: an ensemble Q(s, a) and its target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.core.types import Metrics
from deflow.nn.mlp import Ensemble, gelu

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
        activation: Callable[[Array], Array] = gelu,
        key: PRNGKeyArray,
    ):
        self.nets = Ensemble(
            count,
            observation_dim + action_dim,
            1,
            hidden,
            layer_norm=layer_norm,
            activation=activation,
            key=key,
        )

    def __call__(
        self, observations: Float[Array, "*batch obs"], actions: Float[Array, "*batch act"]
    ) -> Float[Array, "count *batch"]:
        return self.nets(beside(observations, actions))[..., 0]


def beside(
    observations: Float[Array, "*some obs"], actions: Float[Array, "*batch act"]
) -> Float[Array, "*batch both"]:
    """Inputs of a critic: each observation beside its action, or beside each of its actions."""
    observations = jnp.broadcast_to(observations, (*actions.shape[:-1], observations.shape[-1]))
    return jnp.concatenate([observations, actions], axis=-1)


def aggregate(q: Float[Array, "count *batch"], how: Aggregation) -> Float[Array, "*batch"]:
    """One value out of an ensemble's."""
    return q.mean(0) if how == "mean" else q.min(0)


def td_target(
    rewards: Float[Array, " batch"],
    masks: Float[Array, " batch"],
    next_values: Float[Array, "*count batch"],
    discount: float | Float[Array, ""],
) -> Float[Array, "*count batch"]:
    """r + gamma * mask * Q(s', a'): nothing is bootstrapped where the episode truly ended."""
    return rewards + discount * masks * next_values


def td_loss(
    critic: Critic,
    observations: Float[Array, "batch obs"],
    actions: Float[Array, "batch act"],
    target: Float[Array, "*count batch"],
    *,
    over_ensemble: Literal["mean", "sum"] = "mean",
) -> tuple[Float[Array, ""], Metrics]:
    """E (Q(s, a) - y)^2, with the values' statistics; one target for all critics, or one for each.

    Averaged over the batch; over the ensemble averaged (FQL's family) or summed (IQL).
    """
    q = critic(observations, actions)
    errors = jnp.square(q - target).mean(-1)
    loss = errors.mean() if over_ensemble == "mean" else errors.sum()
    metrics = {"loss": loss, "q_mean": q.mean(), "q_min": q.min(), "q_max": q.max()}
    metrics |= {"target_mean": target.mean(), "target_min": target.min()}
    metrics["target_max"] = target.max()
    return loss, {f"critic/{name}": value for name, value in metrics.items()}
