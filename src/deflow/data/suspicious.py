"""What looks wrong in data that can be read: each finding one sentence."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from deflow.data.dataset import Dataset
from deflow.data.readers.raw import RawData

Array = np.ndarray[Any, Any]

SATURATED = 0.2
"""The share of rows at the box's edge from which a column of actions is named."""

_EDGE = 1e-3
_SHOWN = 8


def suspicious(dataset: Dataset, *, rewarded: bool = True) -> list[str]:
    """Findings on a dataset; `rewarded` is false where its rewards and masks mean nothing."""
    return [
        *_constant("observation", dataset.observations),
        *_constant("action", dataset.actions[dataset.rows]),
        *_saturated(dataset),
        *(_rewards(dataset) if rewarded else ()),
        *_mismatched(dataset),
        *_reset(dataset),
        *_duplicates(dataset),
    ]


def finite_part(raw: RawData) -> tuple[RawData, list[str]]:
    """The data without the trajectories that hold numbers that are not finite, and what was found.

    Where every trajectory holds one, nothing is left out, so that training's own error names it.
    """
    found = []
    wrong = np.zeros(len(raw.observations), np.bool_)
    for name in ("observations", "actions", "rewards", "next_observations"):
        array = getattr(raw, name)
        if array is None or array.dtype.kind != "f" or not array.size:
            continue
        bad = ~np.isfinite(array.reshape(len(array), -1))
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            found.append(
                f"{name}: {int(bad.sum()):,} numbers are not finite (NaN or infinite), the first "
                f"in row {row}, column {column}; training refuses them"
            )
            wrong |= bad.any(axis=1)
    ends = raw.ends()
    episode: Array = np.cumsum(ends) - ends
    spoiled: Array = np.unique(episode[wrong])
    kept = ~np.isin(episode, spoiled)
    if not found or not kept.any():
        return raw, found
    found.append(f"{len(spoiled):,} episodes are left out of the numbers here for that reason")
    return _only(raw, kept, ends), found


def _only(raw: RawData, kept: Array, ends: Array) -> RawData:
    follows = raw.next_observations
    timeouts = ends & ~np.asarray(raw.terminals, np.bool_)
    return replace(
        raw,
        observations=raw.observations[kept],
        actions=raw.actions[kept],
        rewards=raw.rewards[kept],
        terminals=raw.terminals[kept],
        timeouts=timeouts[kept],
        lengths=None,
        next_observations=None if follows is None else follows[kept],
    )


def _constant(what: str, array: Array) -> Iterator[str]:
    if len(array) < 2 or array.ndim != 2:  # In frames, a pixel that never changes is nothing new.
        return
    still = np.flatnonzero((array == array[0]).all(axis=0))
    if len(still):
        verb = "never change" if len(still) > 1 else "never changes"
        yield f"{what} {_columns(still)} {verb}"


def _saturated(dataset: Dataset) -> Iterator[str]:
    shares = (np.abs(dataset.actions[dataset.rows]) >= 1.0 - _EDGE).mean(axis=0)
    for column in np.flatnonzero(shares >= SATURATED)[:_SHOWN]:
        yield f"action column {column} lies at the edge of its box in {shares[column]:.0%} of rows"


def _rewards(dataset: Dataset) -> Iterator[str]:
    rewards, ended = dataset.rewards[dataset.rows], dataset.masks[dataset.rows] == 0
    if len(rewards) > 1 and (rewards == rewards[0]).all():
        yield f"rewards never vary: all are {rewards[0]:g}"
    if not ended.any():
        yield "no row is a termination: every trajectory was cut, and values are bootstrapped on"
    lengths = np.diff(dataset.episode_ends, prepend=-1)
    last = np.isin(dataset.rows, dataset.episode_ends)
    equal = len(lengths) > 1 and lengths[0] > 1 and (lengths == lengths[0]).all()
    if equal and ended[last].sum() == ended.sum() == len(lengths):
        yield (
            f"every one of {len(lengths):,} episodes terminates after {lengths[0]:,} rows: "
            "perhaps these are time limits, which belong in timeouts"
        )


def _mismatched(dataset: Dataset) -> Iterator[str]:
    inside = ~np.isin(dataset.rows, dataset.episode_ends)
    apart = inside & (dataset.next_rows != dataset.rows + 1)
    if apart.any():
        yield (
            f"{int(apart.sum()):,} next observations ({apart.mean():.1%} of rows) are not the "
            f"observation of the row after, the first in row {int(dataset.rows[np.argmax(apart)])}"
            ": perhaps episodes end there unmarked, or rows are out of order"
        )


def _reset(dataset: Dataset) -> Iterator[str]:
    """Where a log kept what the environment was reset to in place of a trajectory's last
    observation; at a termination nothing is bootstrapped, and it does not matter."""
    rows, ends = dataset.rows, dataset.episode_ends
    cut = np.isin(rows, ends[:-1]) & (dataset.masks[rows] != 0)
    last, follows = rows[cut], dataset.next_rows[cut]
    seen = dataset.observations
    same = (seen[follows] == seen[last + 1]).all(axis=tuple(range(1, seen.ndim)))
    if same.any():
        yield (
            f"the next observation at {int(same.sum()):,} ends is the next episode's first, as "
            "where an environment was reset before it was read: these trajectories were cut and "
            "not terminated, so their values are bootstrapped from another episode; log the "
            "observation before the reset, or leave next_observations out"
        )


def _duplicates(dataset: Dataset) -> Iterator[str]:
    begins = np.concatenate([[0], dataset.episode_ends[:-1] + 1])
    seen: dict[bytes, int] = {}
    twins: list[tuple[int, int]] = []
    for index, (first, last) in enumerate(zip(begins, dataset.episode_ends, strict=True)):
        digest = hashlib.sha256()
        for array in (dataset.observations, dataset.actions):
            digest.update(np.ascontiguousarray(array[first : last + 1]).data)
        before = seen.setdefault(digest.digest(), index)
        if before != index:
            twins.append((before, index))
    if twins:
        yield (
            f"{len(twins):,} of {len(begins):,} episodes repeat another row for row, such as "
            f"episode {twins[0][1]} episode {twins[0][0]}"
        )


def _columns(indices: Sequence[int] | Iterable[int] | Array) -> str:
    listed = [str(int(index)) for index in indices]
    more = len(listed) - _SHOWN
    text = ", ".join(listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return f"columns {text}" if len(listed) > 1 else f"column {text}"
