"""What a family has met online, and the books: where episodes begin, what may be drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from deflow.core.errors import DeFlowError
from deflow.core.types import Batch, Spec
from deflow.data.columns import returns_of
from deflow.data.dataset import Dataset
from deflow.envs.lockstep import Steps
from deflow.training.device_data import free_memory
from deflow.training.replay import FIELDS, Reach, empty, insert, refill

PUBLISHED_ROOM = 2_000_000
"""Transitions of data and replay together beyond which the official code overwrites the oldest."""


class Experience:
    """A replay for each member, and the books that go with it.

    Args:
        spec: widths of observations and actions.
        members: how many runs step in lockstep.
        steps: environment steps of the whole phase.
        fields: columns that the agent asks for.
        settings: of each such column (`Agent.column_settings`).
        dataset: the data that the runs began with, if any.
        overwrite: keep no more than the official code's buffer does, max(2,000,000, data + 1): what
            is met then takes the place of the oldest, the data first.

    Whether there is room for it all is asked before a run begins (`require_room`).
    """

    def __init__(
        self,
        spec: Spec,
        members: int,
        steps: int,
        fields: tuple[str, ...],
        settings: Mapping[str, Mapping[str, float]],
        dataset: Dataset | None,
        overwrite: bool = False,
    ):
        self.logged = dataset.transitions if dataset else 0
        self.window = window_of(dataset) if overwrite else None
        self.room = room_of(steps, dataset, overwrite)
        self.replay = empty(spec, members, self.room, fields)
        self.met, self.begun, self.first = (np.zeros(members, np.int64) for _ in range(3))
        self._waits = "returns" in fields
        if self._waits:
            own = dict(settings["returns"])
            self._discount = own["discount"]
            self._scale, self._bias = own.get("scale", 1.0), own.get("bias", 0.0)
            worst = float(dataset.rewards[dataset.rows].min()) if dataset else -np.inf
            self._worst = self._scale * worst + self._bias
            self._returns = np.zeros((members, self.room), np.float32)

    def add(self, steps: Steps) -> None:
        """Take in one step of every member.

        A step that was lost takes its unfinished episode with it. Returns are known, and their
        transitions in reach, when an episode ends.
        """
        slots = np.where(steps.lost, self.room, self.met % self.room)
        goes_on = ~steps.lost & (self.met > self.begun)
        previous = np.where(goes_on, (self.met - 1) % self.room, self.room)
        # All that goes to the device at a step, at once.
        told = (steps.observations, steps.actions, steps.rewards, steps.masks)
        slots, previous, *columns = jax.device_put(
            (slots, previous, *told, steps.next_observations)
        )
        self.replay = insert(slots, previous, Batch(*columns), self.replay)
        self.met = np.where(steps.lost, self.begun, self.met + 1)
        self.first = np.maximum(self.first, self.met - self.room)
        if steps.ended.any():
            if self._waits:
                self._give_returns(np.flatnonzero(steps.ended))
            self.begun = np.where(steps.ended, self.met, self.begun)

    def reach(self) -> Reach | None:
        """What each member may draw now; None while one of them has nothing to draw."""
        seen = self.begun if self._waits else self.met
        high = self.logged + seen
        low = np.maximum(0, high - self.window) if self.window else np.zeros_like(high)
        first = self.logged + np.minimum(self.first, seen)
        # The data's own stay until a ring has gone round; then the oldest may have been
        # overwritten, also where a lost episode has taken the count back.
        low = np.where((low >= self.logged) | (self.first > 0), np.maximum(low, first), low)
        if (high <= low).any():
            return None
        return Reach(*jax.device_put((low, first, high)))

    def unfinished(self, member: int) -> NDArray[np.float32]:
        """The actions [n, act] of a member's unfinished episode, in order."""
        slots = np.arange(self.begun[member], self.met[member]) % self.room
        return np.asarray(self.replay.actions[member, slots])

    def leads_to(self, member: int, observation: NDArray[np.float32]) -> bool:
        """Whether a member's unfinished episode, if it has one, has come to this observation."""
        if self.met[member] == self.begun[member]:
            return True
        last = self.replay.next_observations[member, (self.met[member] - 1) % self.room]
        return bool((np.asarray(last) == observation).all())

    def end_episodes(self, members: NDArray[np.int64]) -> None:
        """Count unfinished episodes of some members as cut off here."""
        if self._waits and len(members):
            self._give_returns(members)
        self.begun[members] = self.met[members]

    # Checkpoints -----------------------------------------------------------------------------

    @property
    def used(self) -> int:
        """Slots in use, of the member that has met most."""
        return int(np.clip(self.met.max(), 1, self.room))  # No array may be empty.

    def arrays(self) -> Batch:
        """The slots in use, cut on the host: the device has no room for them to be copied."""
        used: Batch = jax.tree.map(lambda column: np.asarray(column)[:, : self.used], self.replay)
        return used

    def books(self) -> dict[str, Any]:
        """The counts, ready for JSON."""
        return {name: getattr(self, name).tolist() for name in ("met", "begun", "first")}

    def like(self, books: Mapping[str, Any]) -> Batch:
        """The shapes of what `arrays` gave when `books` were kept."""
        used = min(max(*books["met"], 1), self.room)
        shapes: Batch = jax.eval_shape(
            lambda replay: jax.tree.map(lambda column: column[:, :used], replay), self.replay
        )
        return shapes

    def restore(self, books: Mapping[str, Any], arrays: Batch) -> None:
        """Go on from what a checkpoint holds."""
        for name in ("met", "begun", "first"):
            setattr(self, name, np.array(books[name], np.int64))
        self.replay = refill(arrays, self.replay)
        if self._waits:
            self._returns = np.array(self.replay.fields["returns"])

    def _give_returns(self, members: NDArray[np.int64]) -> None:
        """The returns of some members' unfinished episodes, as they are now."""
        # Whole columns are taken from the device, and given to it, since it would compile a program
        # for each length of an episode.
        rewards, masks = np.asarray(self.replay.rewards), np.asarray(self.replay.masks)
        for member in members[self.met[members] > self.begun[members]]:
            slots = np.arange(self.begun[member], self.met[member]) % self.room
            own = self._scale * rewards[member, slots].astype(np.float64) + self._bias
            last = np.arange(len(slots)) == len(slots) - 1
            self._returns[member, slots] = returns_of(
                own, masks[member, slots], last, self._discount, self._worst
            )
        # A copy, since the device would go on reading the array that is written next time.
        known = jnp.array(self._returns)
        self.replay = eqx.tree_at(lambda r: r.fields["returns"], self.replay, known)


def window_of(dataset: Dataset | None) -> int:
    """Transitions that the official code's buffer holds, the data among them."""
    return max(PUBLISHED_ROOM, (dataset.transitions if dataset else 0) + 1)


def room_of(steps: int, dataset: Dataset | None, overwrite: bool) -> int:
    """Transitions that a member's replay of so many steps keeps at once."""
    return min(steps, window_of(dataset)) if overwrite else steps


def require_room(
    spec: Spec, members: int, room: int, fields: tuple[str, ...], beside: int = 0
) -> int:
    """The bytes that a replay of `room` transitions a member takes on the device.

    Raises `DeFlowError` where one of the columns cannot be kept up online, or where there is no
    room for two (the replay, and what a resumed run reads of it) and for `beside` more bytes.
    """
    unknown = [name for name in fields if name not in FIELDS]
    if unknown:
        raise DeFlowError(
            f"The column {unknown[0]} cannot be kept up online; those that can are "
            f"{', '.join(FIELDS)}."
        )
    replay = jax.eval_shape(lambda: empty(spec, members, room, fields))
    size = sum(column.size * column.dtype.itemsize for column in jax.tree.leaves(replay))
    there = free_memory()
    if 2 * size + beside > there:
        data = f" and the data {beside / 1e9:.1f} GB," if beside else ""
        raise DeFlowError(
            f"What {members} x {room:,} steps meet takes {size / 1e9:.1f} GB, twice that while a "
            f"checkpoint is read,{data} and {there / 1e9:.1f} GB are free: take fewer steps "
            "online, or fewer members."
        )
    return int(size)
