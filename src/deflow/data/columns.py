"""Columns that a dataset can make of its trajectories, for agents that ask for them by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from deflow.core.errors import DeFlowError
from deflow.data.dataset import Dataset, Floats


def next_actions(data: Dataset) -> Floats:
    """[N, act]: the action that followed; where none did, the row's own (as DeFlow's code does).

    FQL's code takes the next row there, which belongs to another trajectory.
    """
    followed = np.zeros(len(data.observations), np.bool_)
    followed[data.rows] = True
    column = data.actions.copy()
    goes_on = followed[data.next_rows]
    column[data.rows[goes_on]] = data.actions[data.next_rows[goes_on]]
    return column


def previous_actions(data: Dataset) -> Floats:
    """[N, act]: the action that led here; zeros where a trajectory begins."""
    column = np.zeros_like(data.actions)
    moves = data.rows != data.next_rows  # A true end without a next observation points at itself.
    column[data.next_rows[moves]] = data.actions[data.rows[moves]]
    return column


def returns(data: Dataset, *, discount: float, scale: float = 1.0, bias: float = 0.0) -> Floats:
    """[N]: the discounted sum of what was still to come in the trajectory, of rewards
    `scale * r + bias`.

    A trajectory that never does better than the worst reward of the data, and does not truly end,
    is taken to go on like that for ever (Cal-QL's rule for failures); any other that was cut off
    counts what it holds (a derivation: Cal-QL's sets have no such).
    """
    rewards = scale * data.rewards.astype(np.float64) + bias
    worst = rewards[data.rows].min()
    column = np.zeros(len(rewards))
    ends = data.rows[-1:] if not len(data.episode_ends) else data.episode_ends
    for first, last in zip(np.r_[0, ends[:-1] + 1], ends, strict=True):
        own = slice(first, last + 1)
        column[own] = returns_of(rewards[own], data.masks[last], discount, worst)
    return column.astype(np.float32)


def returns_of(
    rewards: NDArray[np.float64], mask: float, discount: float, worst: float
) -> NDArray[np.float64]:
    """Discounted returns [n] of one trajectory's rewards [n], whose last step has this mask."""
    if mask and (rewards <= worst).all():
        return np.full(len(rewards), worst / (1 - discount))
    column = np.empty(len(rewards))
    following = 0.0
    for index in range(len(rewards) - 1, -1, -1):
        following = rewards[index] + discount * following
        column[index] = following
    return column


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
    """Raise `DeFlowError` where the dataset cannot make the column."""
    if name not in COLUMNS:
        raise DeFlowError(
            f"{data.name} has no column {name!r}, which this agent needs; known are "
            f"{', '.join(sorted(COLUMNS))}."
        )
