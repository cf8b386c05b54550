"""Columns that a dataset makes of its trajectories."""

from __future__ import annotations

import numpy as np

from deflow.data.columns import column
from deflow.data.dataset import Dataset


def walk() -> Dataset:
    """Two trajectories: one that terminates at row 1, one that is cut at row 3."""
    return Dataset.from_arrays(
        observations=np.arange(4.0)[:, None],
        actions=np.array([[0.1], [0.2], [0.3], [0.4]]),
        rewards=np.zeros(4),
        terminals=[False, True, False, False],
        timeouts=[False, False, False, True],
    )


def test_the_previous_action_is_zero_where_a_trajectory_begins_and_only_there():
    np.testing.assert_allclose(column(walk(), "previous_actions", {})[:, 0], [0, 0.1, 0, 0.3])


def test_the_next_action_is_the_rows_own_where_none_followed():
    following = column(walk(), "next_actions", {})[walk().rows, 0]
    np.testing.assert_allclose(following, [0.2, 0.2, 0.3])
