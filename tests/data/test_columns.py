"""Columns that a dataset makes of its trajectories."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deflow.core.errors import DeFlowError
from deflow.data.columns import column, returns_of
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


# Returns ---------------------------------------------------------------------------------------


def log(
    rewards: list[float], terminals: tuple[int, ...] = (), timeouts: tuple[int, ...] = ()
) -> Dataset:
    """Trajectories that end at these rows."""
    count = len(rewards)
    return Dataset.from_arrays(
        observations=np.arange(float(count))[:, None],
        actions=np.zeros((count, 1)),
        rewards=np.asarray(rewards),
        terminals=np.isin(np.arange(count), terminals),
        timeouts=np.isin(np.arange(count), timeouts),
        next_observations=np.arange(1.0, count + 1)[:, None],
    )


def test_a_terminated_trajectory_sums_its_discounted_rewards():
    found = column(log([-1, -1, -1, -1], (3,)), "returns", {"discount": 0.9})
    np.testing.assert_allclose(found[:4], [-3.439, -2.71, -1.9, -1], rtol=1e-6)


def test_trajectories_do_not_run_into_each_other():
    found = column(log([1, 2, 4, 8], (1, 3)), "returns", {"discount": 0.5})
    np.testing.assert_allclose(found[:4], [2, 2, 8, 8])


def test_a_failure_that_was_cut_off_goes_on_for_ever():
    data = log([-1, -1, -1, 0], terminals=(3,), timeouts=(1,))
    found = column(data, "returns", {"discount": 0.9})
    np.testing.assert_allclose(found[:4], [-10, -10, -1, 0], rtol=1e-6)


def test_a_trajectory_that_was_cut_off_after_it_did_better_counts_what_it_holds():
    data = log([-2, -1, -2, -2], timeouts=(1, 3))
    found = column(data, "returns", {"discount": 0.9})
    np.testing.assert_allclose(found[:4], [-2.9, -1, -20, -20], rtol=1e-6)


@given(
    rewards=st.lists(st.floats(-3, 3), min_size=2, max_size=12),
    discount=st.floats(0.5, 0.99),
    scale=st.floats(0.1, 10),
    bias=st.floats(-5, 5),
)
def test_returns_follow_bellmans_equation_in_the_rewards_that_an_agent_sees(
    rewards: list[float], discount: float, scale: float, bias: float
):
    data = log(rewards, terminals=(len(rewards) - 1,))
    settings = {"discount": discount, "scale": scale, "bias": bias}
    found = column(data, "returns", settings)[: len(rewards)]
    seen = scale * data.rewards[: len(rewards)] + bias
    following = np.append(found[1:], 0)
    np.testing.assert_allclose(found, seen + discount * following, rtol=1e-4, atol=1e-3)


@given(rewards=st.lists(st.sampled_from([-1.0, 0.0]), min_size=1, max_size=8), mask=st.booleans())
def test_only_an_endless_failure_is_taken_to_be_endless(rewards: list[float], mask: bool):
    masks, last = np.ones(len(rewards)), np.arange(len(rewards)) == len(rewards) - 1
    masks[-1] = mask
    found = returns_of(np.asarray(rewards), masks, last, 0.5, -1.0)
    if mask and 0.0 not in rewards:
        assert (found == -2).all()
    else:
        discounts = 0.5 ** np.arange(len(rewards))
        assert found[0] == pytest.approx(float(discounts @ np.asarray(rewards)))


def test_a_column_that_nobody_makes_is_refused():
    with pytest.raises(DeFlowError, match="no column 'zzz'"):
        column(walk(), "zzz", {})


def test_a_true_end_inside_a_trajectory_ends_the_sum_and_what_follows_is_judged_by_itself():
    """OGBench's sets go on after a success: what came later was not earned by what came before."""
    rewards, masks = np.full(300, -1.0), np.ones(300)
    rewards[50], masks[50] = 0.0, 0.0
    last = np.arange(300) == 299
    found = returns_of(rewards, masks, last, 0.99, -1.0)
    before = -(1 - 0.99 ** (50 - np.arange(50))) / (1 - 0.99)
    np.testing.assert_allclose(found[:50], before)
    assert found[50] == 0
    np.testing.assert_allclose(found[51:], -100)
