from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import seen
from tests.envs.members import WALK, alone, assert_same, drawn, faulty, here, rows, short

from deflow.core.errors import DeFlowError
from deflow.envs.lockstep import APART, Lockstep
from deflow.envs.make import EnvSpec

PENDULUM = EnvSpec(entry="tests.envs.faults:pendulum")


@pytest.mark.parametrize(
    ("spec", "width", "terminates"),
    [
        (WALK, 2, True),
        (PENDULUM, 1, False),
        (short("pointmaze-medium-singletask-task1-v0", 9), 2, False),
        (short("cube-single-singletask-task1-v0", 11), 5, False),
    ],
    ids=["walk", "pendulum", "pointmaze", "cube"],
)
def test_lockstep_equals_stepping_each_alone(spec: EnvSpec, width: int, terminates: bool) -> None:
    seeds = (3, 5)
    with Lockstep(spec, seeds) as worlds:
        worlds.begin()
        actions = drawn(20, len(seeds), width)
        shown, met = [], []
        for action in actions:
            shown.append(worlds.observations)
            met.append(worlds.step(action))
    for member, seed in enumerate(seeds):
        for step, expected in enumerate(alone(spec, seed, actions[:, member])):
            assert_same(rows(met[step], member), expected)
            np.testing.assert_array_equal(shown[step][member], expected["observations"])
    assert met[0].observations.dtype == met[0].rewards.dtype == met[0].masks.dtype == np.float32
    assert any(steps.ended.any() for steps in met)
    assert any((steps.masks == 0).any() for steps in met) == terminates
    assert worlds.seconds > 0


def test_at_an_episodes_end_both_observations_are_told(capsys: Any) -> None:
    with Lockstep(WALK, [0]) as worlds:
        worlds.begin()
        ends = 0
        for action in drawn(30, 1, 2):
            steps = worlds.step(action)
            if steps.ended[0]:
                ends += 1
                first = here(WALK).reset(APART, int(worlds.episodes[0]))
                np.testing.assert_array_equal(worlds.observations[0], first.astype(np.float32))
                assert not np.array_equal(worlds.observations, steps.next_observations)
                assert worlds.lengths[0] == 0
            else:
                np.testing.assert_array_equal(worlds.observations, steps.next_observations)
        assert ends > 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (EnvSpec(env_id="cube-singel-v0"), "no environment called"),
        (EnvSpec(env_id="pointmaze-medium-v0"), "goal-conditioned"),
        (EnvSpec(env_id="Pendulum-v1"), "RescaleAction"),
        (EnvSpec(entry=seen.ENV), "learning online from frames is not supported"),
    ],
)
def test_an_unfit_environment_is_refused_at_once(spec: EnvSpec, reason: str) -> None:
    with Lockstep(spec, [0, 1]) as worlds, pytest.raises(DeFlowError, match=reason):
        worlds.begin()
    assert not worlds.failures.any()


def test_what_is_asked_for_must_make_sense() -> None:
    for seeds, options in (([], {}), ([0], {"patience": 0}), ([0], {"limit": 0})):
        with pytest.raises(DeFlowError):
            Lockstep(WALK, seeds, **options)


def test_actions_are_checked() -> None:
    for actions, reason in (
        (np.zeros((1, 2)), r"shape \(1, 2\), not \(2, 2\)"),
        (np.array([[0, 0], [0, np.nan]]), r"seed7.*not finite in episode 0"),
    ):
        with Lockstep(WALK, [6, 7]) as worlds:
            worlds.begin()
            with pytest.raises(DeFlowError, match=reason):
                worlds.step(actions)


def test_members_are_stepped_at_the_same_time(tmp_path: Path) -> None:
    spec = EnvSpec(entry="tests.envs.faults:Meeting", kwargs=(("folder", str(tmp_path)),))
    with Lockstep(spec, [0, 1]) as worlds:
        worlds.begin()
        assert not worlds.step(np.zeros((2, 2))).lost.any()


@pytest.fixture(scope="module")
def again() -> Iterator[Lockstep]:
    with Lockstep(faulty(), [3, 5]) as worlds:
        yield worlds


@settings(max_examples=15)
@given(
    st.tuples(st.integers(0, 5), st.integers(0, 5)), st.tuples(st.integers(0, 7), st.integers(0, 7))
)
def test_an_episode_played_again_goes_on_as_it_would_have(
    again: Lockstep, episodes: tuple[int, int], lengths: tuple[int, int]
) -> None:
    actions = drawn(8, 2, 2)
    parts = [actions[:length, member] for member, length in enumerate(lengths)]
    assert again.resume(episodes, parts) == [True, True]
    assert again.lengths.tolist() == list(lengths)
    assert again.episodes.tolist() == list(episodes)
    for member, seed in enumerate((3, 5)):
        env = here(faulty())
        seen_, total = env.reset(seed + APART, episodes[member]), 0.0
        for action in np.clip(parts[member], -1, 1):
            seen_, reward, *_ = env.step(action)
            total += reward
        np.testing.assert_array_equal(again.observations[member], seen_.astype(np.float32))
        assert again._returns[member] == total


def test_a_real_episode_is_reached_again_bit_for_bit() -> None:
    """In a new process, and then on into the next episode."""
    spec, actions = short("cube-single-singletask-task1-v0", 30), drawn(32, 1, 5)
    with Lockstep(spec, [6]) as worlds:
        worlds.begin([4])
        met = [worlds.step(action) for action in actions[:25]]
        reached = worlds.observations
        rest = [worlds.step(action) for action in actions[25:]]
    with Lockstep(spec, [6]) as worlds:
        assert worlds.resume([4], [np.concatenate([steps.actions for steps in met])]) == [True]
        np.testing.assert_array_equal(worlds.observations, reached)
        for action, expected in zip(actions[25:], rest, strict=True):
            assert_same(rows(worlds.step(action), 0), rows(expected, 0))
    assert sum(steps.ended[0] for steps in rest) == 1


def test_an_episode_that_cannot_be_played_again_gives_way(capfd: Any) -> None:
    """The first one ends on the way, the second fails in a step, the third at its beginning."""
    spec = faulty((1, 6, "raise", 3), (2, 7, "kill", 0))
    with Lockstep(spec, [0, 1, 2, 3]) as worlds:
        actions = [drawn(length, 1, 2)[:, 0] for length in (8, 5, 2, 4)]
        assert worlds.resume([5, 6, 7, 8], actions) == [False, False, False, True]
        assert worlds.episodes.tolist() == [6, 7, 8, 8]
        assert worlds.lengths.tolist() == [0, 0, 0, 4]
        for member in range(3):
            first = here(faulty()).reset(member + APART, 6 + member)
            np.testing.assert_array_equal(worlds.observations[member], first.astype(np.float32))
    assert "dropped" not in capfd.readouterr().err


def test_an_episode_may_be_given_up() -> None:
    with Lockstep(faulty(), [0, 1]) as worlds:
        worlds.begin()
        worlds.step(np.zeros((2, 2)))
        before = worlds.observations
        worlds.give_up([1])
        assert (worlds.episodes.tolist(), worlds.lengths.tolist()) == ([0, 1], [1, 0])
        first = here(faulty()).reset(1 + APART, 1)
        np.testing.assert_array_equal(worlds.observations, [before[0], first.astype(np.float32)])
        assert worlds.failures.tolist() == [0, 0]


def test_observations_that_were_handed_out_stay() -> None:
    with Lockstep(WALK, [0]) as worlds:
        worlds.begin()
        for action in drawn(20, 1, 2):
            before = worlds.observations
            kept = before.copy()
            steps = worlds.step(action)
            np.testing.assert_array_equal(before, kept)
            np.testing.assert_array_equal(steps.observations, kept)


def test_nothing_is_stepped_before_an_episode_begins() -> None:
    with Lockstep(WALK, [0]) as worlds, pytest.raises(DeFlowError, match="begin one first"):
        worlds.step(np.zeros((1, 2)))
