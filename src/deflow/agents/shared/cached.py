"""Proposals of a finished flow, kept for every row of the dataset, and how an update draws them."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from deflow.core.agent import Noise, RowField, State
from deflow.core.types import Batch, Spec


class CachedNoise(NamedTuple):
    """Which of the cached proposals an update takes, for the target and for the actor."""

    target: Int[Array, "... batch"]
    actor: Int[Array, " batch"]
    critic: Noise = ()


def cached_proposals(count: int, spec: Spec) -> RowField:
    """Actions of a finished flow for every row of the dataset: [rows, count, act]."""

    def draw(agent: Any, key: PRNGKeyArray, rows: int) -> Array:
        return jax.random.normal(key, (rows, count, spec.action_dim))

    def compute(agent: Any, state: State, observations: Array, noise: Array) -> Array:
        proposals: Array = agent.base(state, observations[:, None], noise)
        return proposals

    return RowField("proposals", draw, compute)


def draw_cached(agent: Any, key: PRNGKeyArray, spec: Spec, count: int) -> CachedNoise:
    """One of `count` proposals for each transition, for the target perhaps several."""
    target_key, actor_key, critic_key = jax.random.split(key, 3)
    size = agent.batch_size
    return CachedNoise(
        target=jax.random.randint(target_key, (*agent.target_samples, size), 0, count),
        actor=jax.random.randint(actor_key, (size,), 0, count),
        critic=agent.draw_critic(critic_key, spec),
    )


def drawn_proposals(
    batch: Batch, noise: CachedNoise
) -> tuple[Float[Array, "... batch act"], Float[Array, "batch act"]]:
    """The proposals that were drawn: for s', and for s."""
    rows = jnp.arange(len(noise.actor))
    return (
        batch.fields["next_proposals"][rows, noise.target],
        batch.fields["proposals"][rows, noise.actor],
    )


def share_flow(state: State, donor: State) -> State:
    """The state with the donor's flow."""
    return eqx.tree_at(lambda s: s.flow, state, donor.flow)
