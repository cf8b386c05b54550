"""What a family meets online, on the device: one ring of transitions for each of its members."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from deflow.core.types import Batch, Spec
from deflow.training.device_data import DeviceData
from deflow.training.family import choose


class Replay(eqx.Module):
    """Transitions in the order in which they were met; the n-th stands in slot n modulo `room`.

    The leading axis of members is there when a family is stored, and gone inside `vmap`.
    """

    observations: Float[Array, "*members room obs"]
    actions: Float[Array, "*members room act"]
    rewards: Float[Array, "*members room"]
    masks: Float[Array, "*members room"]
    next_observations: Float[Array, "*members room obs"]
    fields: dict[str, Array]
    """Further columns: `next_actions` as the data have them, and Monte-Carlo `returns`."""

    @classmethod
    def empty(cls, spec: Spec, members: int, room: int, fields: tuple[str, ...]) -> Replay:
        """Room for `room` transitions of every member."""

        def zeros(*shape: int) -> Array:
            return jnp.zeros((members, room, *shape), jnp.float32)

        widths: dict[str, tuple[int, ...]]
        widths = {"next_actions": (spec.action_dim,), "returns": ()}
        return cls(
            observations=zeros(spec.observation_dim),
            actions=zeros(spec.action_dim),
            rewards=zeros(),
            masks=zeros(),
            next_observations=zeros(spec.observation_dim),
            fields={name: zeros(*widths[name]) for name in fields},
        )

    @property
    def room(self) -> int:
        return self.rewards.shape[-1]

    def take(self, slots: Int[Array, " batch"]) -> Batch:
        """The transitions in some slots of one member."""
        own: Replay = jax.tree.map(lambda column: column[slots], self)
        return Batch(
            observations=own.observations,
            actions=own.actions,
            rewards=own.rewards,
            masks=own.masks,
            next_observations=own.next_observations,
            fields=own.fields,
        )


class Met(eqx.Module):
    """One step of every member: the transition, its slot, and that of the one before it in the same
    episode (out of range where there is none, or where the step was lost)."""

    slot: Int[Array, " members"]
    previous: Int[Array, " members"]
    observations: Float[Array, "members obs"]
    actions: Float[Array, "members act"]
    rewards: Float[Array, " members"]
    masks: Float[Array, " members"]
    next_observations: Float[Array, "members obs"]


@partial(jax.jit, donate_argnames="replay")
def insert(met: Met, replay: Replay) -> Replay:
    """The replay with one more transition a member; its memory is used again, nothing is copied."""

    def put(own: Replay, met: Met) -> Replay:
        written = {
            name: getattr(own, name).at[met.slot].set(getattr(met, name), mode="drop")
            for name in ("observations", "actions", "rewards", "masks", "next_observations")
        }
        fields = dict(own.fields)
        if "next_actions" in fields:
            # An action is its own successor until it has one, as in the data.
            column = fields["next_actions"].at[met.previous].set(met.actions, mode="drop")
            fields["next_actions"] = column.at[met.slot].set(met.actions, mode="drop")
        return Replay(**written, fields=fields)

    return jax.vmap(put)(replay, met)


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
    replay: Replay,
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
    met = replay.take((index - count) % replay.room)
    if data is None:
        return met
    logged = data.take(jnp.minimum(index, count - 1), columns)
    batch: Batch = choose(index < count, logged, met)
    return batch
