"""Columns that a dataset can make of its trajectories, for agents that ask for them by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deflow.core.errors import DeFlowError
from deflow.data.dataset import Dataset, Floats


def next_actions(data: Dataset) -> Floats:
    """[N, act]: the action that followed; where none did, the row's own (as DeFlow's code does).

    FQL's code takes the next row there, which belongs to another trajectory.
    """
    column = data.actions.copy()
    goes_on = _are_transitions(data)[data.next_rows]
    column[data.rows[goes_on]] = data.actions[data.next_rows[goes_on]]
    return column


def previous_actions(data: Dataset) -> Floats:
    """[N, act]: the action that led here; zeros where a trajectory begins."""
    column = np.zeros_like(data.actions)
    moves = data.rows != data.next_rows  # A true end without a next observation points at itself.
    column[data.next_rows[moves]] = data.actions[data.rows[moves]]
    return column


def returns(data: Dataset, *, discount: float, scale: float = 1.0, bias: float = 0.0) -> Floats:
    """[N]: the discounted sum of what was still to come before the next true end or cut, of rewards
    `scale * r + bias`; see `returns_of`."""
    rows = data.rows
    rewards = scale * data.rewards[rows].astype(np.float64) + bias
    column = np.zeros(len(data.observations), np.float32)
    column[rows] = returns_of(rewards, data.masks[rows], data.last, discount, float(rewards.min()))
    return column


def returns_of(
    rewards: NDArray[np.float64],
    masks: NDArray[Any],
    last: NDArray[np.bool_],
    discount: float,
    worst: float,
) -> NDArray[np.float64]:
    """Discounted returns [n] of transitions in order, of which some are the `last` of their
    trajectory.

    A stretch that was cut off and never did better than `worst` is taken to go on like that for
    ever (Cal-QL's rule for failures); any other that was cut off counts what it holds. Both are
    derivations for play data, in which a trajectory goes on after a success: Cal-QL's rule is for
    whole trajectories, and its sets have none that was cut off on its way.
    """
    ends = last | (masks == 0)
    stretch = np.cumsum(ends) - ends
    best = np.full(stretch[-1] + 1, -np.inf)
    np.maximum.at(best, stretch, rewards)
    failed = (masks[ends] != 0) & (best <= worst)
    sums = discounted_sums(rewards, masks, last, discount)
    return np.where(failed[stretch], worst / (1 - discount), sums)


def discounted_sums(
    rewards: NDArray[np.float64], masks: NDArray[Any], last: NDArray[np.bool_], discount: float
) -> NDArray[np.float64]:
    """r + gamma mask (the sum of the next transition), [n]; nothing is added after a `last` one."""
    sums, following = np.empty(len(rewards)), 0.0
    carried = np.where(last, 0.0, discount * np.asarray(masks, np.float64))
    for i in range(len(rewards) - 1, -1, -1):
        sums[i] = following = rewards[i] + carried[i] * following
    return sums


COLUMNS: dict[str, Callable[..., Floats]] = {
    "next_actions": next_actions,
    "previous_actions": previous_actions,
    "returns": returns,
}


def column(data: Dataset, name: str, settings: Mapping[str, float]) -> Floats:
    """A column by its name, one value for every row, under the settings that it depends on;
    `DeFlowError` where there is none such."""
    require_column(data, name)
    return COLUMNS[name](data, **settings)


def require_column(data: Dataset, name: str) -> None:
    """Raise `DeFlowError` where the dataset cannot make the column, or holds nothing of it."""
    if name not in COLUMNS:
        raise DeFlowError(
            f"{data.name} has no column {name!r}, which this agent needs; known are "
            f"{', '.join(sorted(COLUMNS))}."
        )
    if name in ("next_actions", "previous_actions"):
        _require_order(data, name.replace("_", " "))


def _require_order(data: Dataset, what: str) -> None:
    """Raise `DeFlowError` where rows that should go on do not, but by chance."""
    following = data.next_rows[data.masks[data.rows] != 0]
    if len(following) and _are_transitions(data)[following].mean() < 0.05:
        raise DeFlowError(
            f"In {data.name} hardly a transition follows another, as where rows are in no order, "
            f"and this agent needs the {what}: give the rows in the order in which they were met."
        )


def _are_transitions(data: Dataset) -> NDArray[np.bool_]:
    """[N]: whether each row is a transition, rather than what only ends one."""
    found = np.zeros(len(data.observations), np.bool_)
    found[data.rows] = True
    return found
