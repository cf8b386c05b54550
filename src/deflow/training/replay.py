"""What a family meets online, on the device: one ring of transitions for each of its members."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from deflow.core.types import Batch, Spec
from deflow.training.device_data import DeviceData
from deflow.training.family import choose

FIELDS: dict[str, Callable[[Spec], tuple[int, ...]]] = {
    "next_actions": lambda spec: (spec.action_dim,),
    "returns": lambda spec: (),
}
"""Columns that can be kept up online, and their widths: `next_actions` as the data have them, and
Monte-Carlo `returns`."""


def empty(spec: Spec, members: int, room: int, fields: tuple[str, ...]) -> Batch:
    """A replay: transitions [members, room, ...] in the order in which they were met, the n-th in
    slot n modulo `room`."""

    def zeros(*shape: int) -> Array:
        return jnp.zeros((members, room, *shape), jnp.float32)

    return Batch(
        observations=zeros(spec.observation_dim),
        actions=zeros(spec.action_dim),
        rewards=zeros(),
        masks=zeros(),
        next_observations=zeros(spec.observation_dim),
        fields={name: zeros(*FIELDS[name](spec)) for name in fields},
    )


@partial(jax.jit, donate_argnames="replay")
def insert(
    slot: Int[Array, " members"], previous: Int[Array, " members"], met: Batch, replay: Batch
) -> Batch:
    """The replay with one more transition a member, in its slot; the memory is used again, nothing
    is copied.

    `previous` is the slot of the one before it in the same episode. Both are out of range where
    there is none, or where the step was lost.
    """

    def put(slot: Array, previous: Array, met: Batch, own: Batch) -> Batch:
        fields = dict(own.fields)
        if "next_actions" in fields:
            # An action is its own successor until it has one, as in the data.
            column = fields["next_actions"].at[previous].set(met.actions, mode="drop")
            fields["next_actions"] = column.at[slot].set(met.actions, mode="drop")
        plain = replace(own, fields={})
        written: Batch = jax.tree.map(
            lambda column, value: column.at[slot].set(value, mode="drop"), plain, met
        )
        return replace(written, fields=fields)

    return jax.vmap(put)(slot, previous, met, replay)


@partial(jax.jit, donate_argnames="replay")
def refill(kept: Batch, replay: Batch) -> Batch:
    """The replay with what was kept [members, used, ...] in its first slots; its memory is used
    again."""
    filled: Batch = jax.tree.map(
        lambda column, first: column.at[:, : first.shape[1]].set(first), replay, kept
    )
    return filled


class Reach(eqx.Module):
    """Which transitions a member may draw, of data and replay laid end to end.

    After the data's transitions, numbered from 0, come the replay's. Those from `low` up and below
    `high` may be drawn; `first` is the oldest of the replay's own among them.
    """

    low: Int[Array, "*members"]
    first: Int[Array, "*members"]
    high: Int[Array, "*members"]


def sample(
    key: PRNGKeyArray,
    size: int,
    data: DeviceData | None,
    columns: dict[str, Array],
    replay: Batch,
    reach: Reach,
    balanced: bool,
) -> Batch:
    """`size` transitions of one member, with replacement.

    Uniform over what is in reach, or `balanced`: half of the data, half of the replay (all of the
    data while the replay is empty).
    """
    count = 0 if data is None else data.rows.shape[0]
    if balanced and data is not None:
        data_key, own_key = jax.random.split(key)
        half = size // 2
        old = jax.random.randint(data_key, (size - half,), 0, count)
        first = jnp.where(reach.high > reach.first, reach.first, 0)
        own = jax.random.randint(own_key, (half,), first, reach.high)
        index = jnp.concatenate([old, own])
    else:
        index = jax.random.randint(key, (size,), reach.low, reach.high)
    slots = (index - count) % len(replay.rewards)
    met: Batch = jax.tree.map(lambda column: column[slots], replay)
    if data is None:
        return met
    logged = data.take(jnp.minimum(index, count - 1), columns)
    batch: Batch = choose(index < count, logged, met)
    return batch
