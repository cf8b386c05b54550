from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.envs.members import WALK, alone, assert_same, drawn, faulty, here, rows

from deflow.core.errors import DeFlowError
from deflow.envs import pool as pools
from deflow.envs.lockstep import APART, Lockstep
from deflow.envs.make import EnvSpec
from deflow.envs.pool import EnvPool

PATIENCE = 2.0


CAUSES = {
    "raise": "the [wheel] came off",
    "hang": "within 2 seconds",
    "kill": "signal 9",
    "nan": "what it shows is not finite",
    "huge": "what it shows is not finite",  # In the float32 that is learnt from.
    "inf": "its reward is inf",
    "huge reward": "its reward is 1e+39",
}


@pytest.mark.parametrize("kind", CAUSES)
def test_a_member_that_fails_is_given_another_episode(kind: str, capfd: Any) -> None:
    """Its second episode fails in its third step; the other member goes on as if nothing were."""
    spec, seeds, actions = faulty((5, 1, kind, 3)), (3, 5), drawn(24, 2, 2)
    with Lockstep(spec, seeds, patience=PATIENCE) as worlds:
        worlds.begin()
        met = [worlds.step(action) for action in actions]
        assert worlds.failures.tolist() == [0, 1]
        assert worlds.failures_in_a_row.tolist() == [0, 0]
    for step, expected in enumerate(alone(faulty(), 3, actions[:, 0])):
        assert_same(rows(met[step], 0), expected)

    lost = 8 + 2
    assert [step for step, steps in enumerate(met) if steps.lost.any()] == [lost]
    row = rows(met[lost], 1)
    assert row["lost"]
    assert not row["ended"]
    assert (row["episodes"], row["lengths"]) == (1, 2)
    assert np.isnan([row["rewards"], row["masks"], row["returns"], *row["next_observations"]]).all()
    first = here(faulty()).reset(5 + APART, 2)
    np.testing.assert_array_equal(met[lost + 1].observations[1], first.astype(np.float32))

    # Before it and after it, its steps are those of a run that never played that episode.
    kept = [*range(8), *range(lost + 1, 24)]
    expected_rows = alone(faulty(), 5, actions[kept, 1], skipped=(1,))
    for step, expected in zip(kept, expected_rows, strict=True):
        assert_same(rows(met[step], 1), expected)

    said = " ".join(capfd.readouterr().err.split())
    assert "seed5 gives up episode 1 (steps dropped: 2)" in said
    assert CAUSES[kind] in said.partition("failure 1 in a row of at most 10: ")[2]


@pytest.mark.parametrize("kind", ["raise", "kill"])
def test_a_reset_that_fails_costs_no_step(kind: str, capfd: Any) -> None:
    """Episodes 0 and 2 cannot begin."""
    actions = drawn(20, 1, 2)
    with Lockstep(faulty((4, 0, kind, 0), (4, 2, kind, 0)), [4]) as worlds:
        worlds.begin()
        assert worlds.episodes.tolist() == [1]
        met = [worlds.step(action) for action in actions]
        assert worlds.failures.tolist() == [2]
    assert not any(steps.lost.any() for steps in met)
    ends = [int(steps.episodes[0]) for steps in met if steps.ended[0]]
    assert ends == [1, 3]
    said = " ".join(capfd.readouterr().err.split())
    assert "gives up episode 0 (steps dropped: 0)" in said
    assert "gives up episode 2 (steps dropped: 0)" in said


def test_a_worker_killed_from_outside_is_replaced() -> None:
    with Lockstep(faulty(), [0, 1]) as worlds:
        worlds.begin()
        action = np.zeros((2, 2), np.float32)
        assert not worlds.step(action).lost.any()
        os.kill(worlds._pools[1]._processes[0].pid, signal.SIGKILL)
        assert worlds.step(action).lost.tolist() == [False, True]
        assert worlds.step(action).episodes.tolist() == [0, 1]
        assert worlds.lengths.tolist() == [3, 1]


def test_the_tenth_failure_in_a_row_stops() -> None:
    spec = faulty(*((2, episode, "raise", 1) for episode in range(10)))
    with Lockstep(spec, [1, 2]) as worlds:
        worlds.begin()
        action = np.zeros((2, 2), np.float32)
        other = worlds._pools[0]._processes[0]
        for failures in range(1, 10):
            assert worlds.step(action).lost.tolist() == [False, True]
            assert worlds.failures_in_a_row.tolist() == [0, failures]
        with pytest.raises(
            DeFlowError, match=r"seed2 .*10 times in a row.*episode 9; .*wheel\] came off"
        ):
            worlds.step(action)
        assert other.returncode is not None
        with pytest.raises(DeFlowError, match="closed"):
            worlds.step(action)


def test_a_whole_episode_in_between_starts_the_count_anew() -> None:
    spec = faulty(*((2, episode, "raise", 2) for episode in (0, 1, 3, 4)))
    with Lockstep(spec, [2], limit=3) as worlds:
        worlds.begin()
        for _ in range(2 * 2 + 8 + 2 * 2):  # Two lost after a step each, a whole one, two lost.
            worlds.step(np.zeros((1, 2)))
        assert worlds.failures.tolist() == [4]
        assert worlds.failures_in_a_row.tolist() == [2]


def test_a_world_that_fails_in_every_episode_does_not_go_on_for_ever() -> None:
    spec = faulty(*((2, episode, "raise", 3) for episode in range(5)))
    with Lockstep(spec, [2], limit=3) as worlds:
        worlds.begin()
        for _ in range(2 * 3 + 2):
            worlds.step(np.zeros((1, 2)))
        with pytest.raises(DeFlowError, match="failed 3 times in a row"):
            worlds.step(np.zeros((1, 2)))


def test_an_environment_that_cannot_be_made_again_stops(tmp_path: Path) -> None:
    mark = (("mark", str(tmp_path / "mark")),)
    with Lockstep(EnvSpec(entry="tests.envs.faults:Unmakeable", kwargs=mark), [0], limit=3) as it:
        it.begin()
        with pytest.raises(DeFlowError, match=r"3 times in a row.*licence has run out"):
            it.step(np.zeros((1, 2)))
        assert it.failures.tolist() == [3]


def test_a_pool_kills_a_worker_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "stop", lambda process: process.wait(20))  # which kills nothing
    with EnvPool(faulty((0, 3, "hang", 1)), 2, 2, patience=PATIENCE) as pool:
        pool.reset(APART, np.array([2, 3]))
        process = pool._processes[1]
        started = time.monotonic()
        pool.start_step(np.zeros((2, 2)), np.full(2, -1))
        with pytest.raises(DeFlowError, match=r"not answer within 2 seconds.*playing episode 3"):
            pool.finish_step()
        assert PATIENCE <= time.monotonic() - started < PATIENCE + 10
        assert process.returncode == -signal.SIGKILL


def test_a_pool_says_that_an_episode_does_not_begin() -> None:
    with (
        EnvPool(faulty((0, 3, "hang", 0)), 1, 1, patience=PATIENCE) as pool,
        pytest.raises(DeFlowError, match="beginning episode 3,"),
    ):
        pool.reset(APART, np.array([3]))


def test_making_has_time_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    with EnvPool(WALK, 1, 1, patience=0.01) as pool:  # far less than a process takes to start
        assert (pool.board.observations.shape[1], pool.act_dim) == (3, 2)
    monkeypatch.setattr(pools, "MAKING", 2.0)
    with (
        EnvPool(EnvSpec(entry="tests.envs.faults:Hanging"), 1, 1, patience=1.0) as pool,
        pytest.raises(DeFlowError, match="within 2 seconds while making its environments"),
    ):
        _ = pool.board


def test_an_answer_that_is_there_is_taken_however_late() -> None:
    with EnvPool(WALK, 1, 1, patience=1.0) as pool:
        pool.reset(0, np.array([0]))
        pool.start_step(np.zeros((1, 2)), np.array([-1]))
        time.sleep(1.5)
        pool.finish_step()
        assert np.isfinite(pool.board.rewards[0])
