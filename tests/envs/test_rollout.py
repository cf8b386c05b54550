from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.envs.members import WALK, short
from tests.envs.toys import Walk

from deflow.core.errors import DeFlowError
from deflow.envs.make import EnvSpec
from deflow.envs.pool import EnvPool
from deflow.envs.rollout import EpisodeResult, rollout
from deflow.envs.seeded import SeededEnv


def wave(observations: Any, episodes: Any, steps: Any) -> Any:
    """Actions that depend on all that a policy may look at."""
    phase = observations[..., :2] + episodes[..., None] + 0.3 * steps[..., None]
    return np.sin(phase).astype(np.float32)


def played(
    spec: EnvSpec, slots: int, workers: int, episodes: range, members: int = 1, act: Any = wave
) -> list[list[EpisodeResult]]:
    with EnvPool(spec, slots, workers) as pool:
        return rollout(pool, act, episodes, 5, members=members)[0]


def one_by_one(episodes: range) -> list[EpisodeResult]:
    """The same, as a plain loop."""
    results = []
    env = SeededEnv(Walk())
    for episode in episodes:
        observation, total, length, done = env.reset(5, episode), 0.0, 0, False
        while not done:
            action = wave(observation.astype(np.float32), np.int32(episode), np.int32(length))
            observation, reward, done, _, info = env.step(action)
            total, length = total + reward, length + 1
        results.append(EpisodeResult(episode, total, length, info["success"], True))
    return results


@pytest.mark.parametrize(
    ("slots", "workers", "episodes"),
    [
        (1, 1, range(4)),
        (5, 2, range(12)),
        (5, 3, range(3, 20, 2)),
        (7, 2, range(3)),
        (2, 9, range(5)),
    ],
)
def test_a_rollout_equals_a_plain_loop(slots: int, workers: int, episodes: range) -> None:
    assert played(WALK, slots, workers, episodes) == [one_by_one(episodes)]


def test_results_do_not_depend_on_the_number_of_workers() -> None:
    spec = short("pointmaze-medium-singletask-task1-v0", 300)

    def towards(observations: Any, episodes: Any, steps: Any) -> Any:
        del steps
        return np.tanh(20 - observations + 0.1 * episodes[..., None]).astype(np.float32)

    first, *others = [played(spec, 4, workers, range(6), act=towards) for workers in (1, 2, 3)]
    assert others == [first, first]


def test_cube_single_does_not_depend_on_the_number_of_workers() -> None:
    spec = short("cube-single-singletask-task1-v0", 40)

    def reach(observations: Any, episodes: Any, steps: Any) -> Any:
        towards = (observations[..., 19:22] - observations[..., 12:15]) / 2
        rest = np.stack([0.01 * steps, np.sin(episodes)], axis=-1)
        return np.concatenate([towards, rest], axis=-1).astype(np.float32)

    first, second = [played(spec, 3, workers, range(3), act=reach) for workers in (1, 2)]
    assert first == second
    assert [result.length for result in first[0]] == [40] * 3
    assert all(result.success == 0 and not result.terminated for result in first[0])


def test_every_member_plays_the_same_episodes() -> None:
    gains = np.array([1.0, 0.5, -1.0], np.float32)

    def family(observations: Any, episodes: Any, steps: Any) -> Any:
        assert observations.shape == (3, 2, 3)
        assert episodes.shape == steps.shape == (3, 2)
        return gains[:, None, None] * wave(observations, episodes, steps)

    results = played(WALK, 6, 2, range(5), members=3, act=family)
    for gain, result in zip(gains, results, strict=True):
        alone = played(WALK, 2, 1, range(5), act=lambda *a, g=gain: g * wave(*a))
        assert [result] == alone
    assert results[0] != results[2]


def test_slots_must_split_evenly() -> None:
    with pytest.raises(DeFlowError, match="evenly"):
        played(WALK, 5, 1, range(5), members=2)


def test_a_pool_may_be_used_again() -> None:
    with EnvPool(WALK, 4, 2) as pool:
        once, times = rollout(pool, wave, range(9), 5)
        assert rollout(pool, wave, range(9), 6)[0] != once
        assert rollout(pool, wave, range(9), 5)[0] == once
    assert times.steps == sum(result.length for result in once[0])
    assert times.workers > 0
    assert times.acting + times.stepping + times.resetting <= times.total


def test_success_is_none_where_the_environment_does_not_say() -> None:
    silent = EnvSpec(entry="tests.envs.toys:Walk", kwargs=(("tells_success", False),))
    assert {result.success for result in played(silent, 2, 1, range(4))[0]} == {None}


def test_no_word_of_success_is_a_failure_where_others_have_one() -> None:
    proud = EnvSpec(entry="tests.envs.toys:Proud")
    (results,) = played(proud, 2, 1, range(12))
    assert {result.success for result in results} == {0.0, 1.0}
    assert results == one_by_one(range(12))


def test_progress_counts_up_to_all_episodes() -> None:
    seen: list[tuple[int, int]] = []
    with EnvPool(WALK, 4, 1) as pool:
        rollout(pool, wave, range(6), 5, members=2, on_tick=lambda *count: seen.append(count))
    assert seen == sorted(seen)
    assert seen[-1] == (12, 12)


def test_no_episodes_are_no_work() -> None:
    assert played(WALK, 2, 1, range(0)) == [[]]


def test_an_action_that_is_not_finite_is_named() -> None:
    def diverged(observations: Any, episodes: Any, steps: Any) -> Any:
        bad = (episodes == 1) & (steps == 0)
        return np.where(bad[..., None], np.nan, 0).astype(np.float32) + np.zeros(2, np.float32)

    with pytest.raises(DeFlowError, match="not finite in episode 1"):
        played(WALK, 2, 1, range(2), act=diverged)


def test_an_episode_without_end_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deflow.envs.rollout.LONGEST", 50)
    endless = EnvSpec(entry="tests.envs.toys:Sleepy", kwargs=(("notes", "/dev/null"),))
    with pytest.raises(DeFlowError, match=r"not ended after 50 steps.*TimeLimit"):
        played(endless, 2, 1, range(2))


def test_actions_of_another_shape_are_refused() -> None:
    with pytest.raises(DeFlowError, match=r"\(1, 2, 2\)"):
        played(WALK, 2, 1, range(2), act=lambda *_: np.zeros((2, 2), np.float32))
