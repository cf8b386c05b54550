"""Columns that a dataset can make of its trajectories, for agents that ask for them by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

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


COLUMNS: dict[str, Callable[[Dataset], Floats]] = {
    "next_actions": next_actions,
    "previous_actions": previous_actions,
}


def column(data: Dataset, name: str) -> Floats:
    """A column by its name, one value for every row; `DeFlowError` where there is none such."""
    require_column(data, name)
    return COLUMNS[name](data)


def require_column(data: Dataset, name: str) -> None:
    """Raise `DeFlowError` where the dataset cannot make the column."""
    if name not in COLUMNS:
        raise DeFlowError(
            f"{data.name} has no column {name!r}, which this agent needs; known are "
            f"{', '.join(sorted(COLUMNS))}."
        )
