"""The dataset in memory: one observation array, and transitions as pairs of rows in it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deflow.core.errors import DeFlowError
from deflow.core.frames import Frame
from deflow.data import checks
from deflow.data.frames import frames

Floats = NDArray[np.float32]
Indices = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Trajectories laid end to end; a transition is a row and the row of its next observation.

    Attributes:
        name: where it came from, for messages and reports.
        observations: [N, obs] float32, or frames [N, height, width, channels] in bytes; every
            observation once, those that only end a step too.
        actions: [N, act] float32, within +-(1 - 1e-5).
        rewards: [N] float32.
        masks: [N] float32; 0 where the episode truly ended, so that nothing is bootstrapped.
        rows: [M] int32; the rows that are transitions.
        next_rows: [M] int32; `observations[next_rows[i]]` follows `observations[rows[i]]`.
        episode_ends: [E] int32; the last row of each trajectory.
    """

    name: str
    observations: NDArray[Any]
    actions: Floats
    rewards: Floats
    masks: Floats
    rows: Indices
    next_rows: Indices
    episode_ends: Indices

    @property
    def transitions(self) -> int:
        """How many transitions there are (M)."""
        return len(self.rows)

    @property
    def episodes(self) -> NDArray[np.intp]:
        """[M]: the number of each transition's episode."""
        return np.searchsorted(self.episode_ends, self.rows)

    @property
    def last(self) -> NDArray[np.bool_]:
        """[M]: whether a transition is the last of its episode."""
        episodes = self.episodes
        return np.append(episodes[1:] != episodes[:-1], True)

    @property
    def frame(self) -> Frame | None:
        """The shape of one frame, where observations are frames."""
        _, *rest = self.observations.shape
        return (rest[0], rest[1], rest[2]) if len(rest) == 3 else None

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays keep in memory."""
        return sum(array.nbytes for _, array in self._arrays())

    def fingerprint(self, *, rewards: bool = True) -> str:
        """SHA-256 (hexadecimal) of every array, its name, shape and type; the set's name is not
        part of it. Without `rewards` (and masks) it is the same for all tasks on one set."""
        digest = hashlib.sha256()
        for key, array in self._arrays():
            if not rewards and key in ("rewards", "masks"):
                continue
            digest.update(f"{key} {array.dtype.str} {array.shape};".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def _arrays(self) -> list[tuple[str, np.ndarray[Any, Any]]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)[1:]]

    @classmethod
    def from_arrays(
        cls,
        observations: Any,
        actions: Any,
        rewards: Any,
        terminals: Any,
        *,
        timeouts: Any = None,
        lengths: Any = None,
        next_observations: Any = None,
        name: str = "custom",
    ) -> Dataset:
        """A dataset from your own flat arrays, a row per step, trajectories one after another.

        A trajectory ends where it terminated or timed out, where `lengths` says, and at the last
        row. What follows the last row of a trajectory is known from `next_observations`; without
        them that row is a transition only where it terminated (the next observation then does not
        matter, since nothing is bootstrapped).

        Args:
            observations: [N, obs] real numbers, or frames [N, height, width, channels] in bytes.
            actions: [N, act] in [-1, 1].
            rewards: [N].
            terminals: [N] booleans: true terminations (not time limits).
            timeouts: [N] booleans: the trajectory was cut here.
            lengths: rows of each trajectory, summing to N.
            next_observations: as observations; only those that are not simply the following row
                of the same trajectory are kept.
            name: for messages and reports.

        Raises:
            DeFlowError: shapes that disagree, numbers that are not finite, discrete actions or
                actions outside the box, flags that are not booleans, nothing to learn from.
        """
        obs = _observed(observations, f"{name}: observations")
        count = len(obs)
        act = checks.actions(actions, f"{name}: actions", count)
        reward = checks.finite(
            checks.column(rewards, f"{name}: rewards", count), f"{name}: rewards"
        )
        terminal = checks.flags(terminals, f"{name}: terminals", count)
        ends = terminal | _ends_by_length(lengths, count, name)
        if timeouts is not None:
            ends |= checks.flags(timeouts, f"{name}: timeouts", count)
        ends[-1] = True

        following = np.where(ends, np.arange(count), np.arange(count) + 1)
        if next_observations is None:
            rows = np.flatnonzero(~ends | terminal)
        else:
            rows = np.arange(count)
            following, extra = _locate(obs, next_observations, ends, name)
            obs = np.concatenate([obs, extra]) if len(extra) else obs
            act = _pad(act, len(extra), 0.0)
            reward = _pad(reward, len(extra), 0.0)
        if not len(rows):
            raise DeFlowError(
                f"{name}: no row has a next observation, so there is no transition; give "
                "next_observations, or trajectories of two rows and more."
            )
        return cls(
            name=name,
            observations=obs,
            actions=act,
            rewards=reward,
            masks=_pad((~terminal).astype(np.float32), len(obs) - count, 1.0),
            rows=rows.astype(np.int32),
            next_rows=following[rows].astype(np.int32),
            episode_ends=np.flatnonzero(ends).astype(np.int32),
        )


def _ends_by_length(lengths: Any, count: int, name: str) -> NDArray[np.bool_]:
    ends = np.zeros(count, np.bool_)
    if lengths is None:
        return ends
    array = checks.numbers(lengths, f"{name}: lengths")
    if array.ndim != 1 or array.dtype.kind not in "iu" or (array < 1).any():
        raise DeFlowError(f"{name}: lengths must be whole numbers of at least 1, one a trajectory.")
    if array.sum() != count:
        raise DeFlowError(
            f"{name}: lengths sum to {array.sum()}, and observations have {count} rows; they must "
            "agree."
        )
    ends[np.cumsum(array) - 1] = True
    return ends


def _observed(value: Any, what: str) -> NDArray[Any]:
    """Vectors, or frames as they are."""
    seen = getattr(value, "ndim", 0) == 4
    return frames(value, what) if seen else checks.matrix(value, what)


def _locate(
    obs: NDArray[Any], next_observations: Any, ends: NDArray[np.bool_], name: str
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The row of each next observation: the following row where equal, else an extra row.

    What follows an end is never the following row, which is another trajectory's, even where a log
    kept what the environment was reset to: two trajectories would be chained.
    """
    what = f"{name}: next_observations"
    given = checks.same_rows(_observed(next_observations, what), what, len(obs))
    if given.shape[1:] != obs.shape[1:]:
        raise DeFlowError(
            f"{what} have {_columns(given)}, and observations have {_columns(obs)}; they must "
            "agree."
        )
    apart = ends.copy()
    apart[:-1] |= (given[:-1] != obs[1:]).any(axis=tuple(range(1, obs.ndim)))
    following = np.arange(1, len(obs) + 1)
    following[apart] = len(obs) + np.arange(apart.sum())
    return following, given[apart]


def _columns(array: NDArray[Any]) -> str:
    """`4 columns`, or `frames of 64x64x3`."""
    if array.ndim == 2:
        return f"{array.shape[1]} columns"
    return f"frames of {'x'.join(map(str, array.shape[1:]))}"


def _pad(array: Floats, rows: int, value: float) -> Floats:
    """The array with `rows` more rows, for observations that no step starts from."""
    extra = np.full((rows, *array.shape[1:]), value, np.float32)
    return np.concatenate([array, extra]) if rows else array
