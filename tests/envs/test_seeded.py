from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.envs.toys import Walk

from deflow.envs.make import EnvSpec, make_env
from deflow.envs.replicate import make_many
from deflow.envs.seeded import SeededEnv, episode_seeds


def play(env: SeededEnv, episode: int, steps: int = 25) -> Any:
    """Observations of an episode under actions that push the arm down to the table."""
    width = env.env.action_space.shape[0]
    rng = np.random.default_rng(episode)
    bias = np.array([0, 0, -0.8, 0, 0]) if width == 5 else 0
    seen = [env.reset(7, episode)]
    for _ in range(steps):
        action = np.clip(rng.normal(bias, 0.5, width), -1, 1).astype(np.float32)
        seen.append(env.step(action)[0])
    return np.array(seen)


@pytest.mark.parametrize("task", ["cube-single", "pointmaze-medium", "antmaze-medium"])
def test_an_episode_is_the_same_whatever_was_played_before(task: str) -> None:
    spec = EnvSpec(env_id=f"{task}-singletask-task1-v0")
    env = SeededEnv(make_env(spec))
    fresh = play(env, 3)
    assert not np.array_equal(fresh, play(env, 4))
    np.testing.assert_array_equal(fresh, play(env, 3))
    np.testing.assert_array_equal(fresh, play(SeededEnv(make_env(spec)), 3))


def test_even_the_solvers_start_is_the_same() -> None:
    env = SeededEnv(make_env(EnvSpec(env_id="cube-single-singletask-task1-v0")))

    def start() -> Any:
        env.reset(7, 3)
        return env.env.unwrapped.data.qacc_warmstart.copy()

    np.testing.assert_array_equal(start(), start())


def test_copies_that_share_a_model_do_not_touch_each_other() -> None:
    spec = EnvSpec(env_id="scene-singletask-task1-v0")
    copies = make_many(make_env(spec), spec, 3)
    np.testing.assert_array_equal(play(copies[2], 0), play(SeededEnv(make_env(spec)), 0))

    # The second copy locks its drawer in between; the first one's stays open.
    first, second = copies[0], copies[1]
    first.reset(7, 0)
    second.reset(7, 0)

    def damping(env: SeededEnv, lock: bool = False) -> float:
        base: Any = env.env.unwrapped

        def look() -> float:
            if lock:
                base._cur_button_states[:] = 0
                base._apply_button_states()
            return float(base.model.joint("drawer_slide").damping[0])

        return float(env._alone(look))

    assert first.env.unwrapped.model is second.env.unwrapped.model
    assert damping(first) == damping(second) == 2
    assert damping(second, lock=True) == 1e6
    assert damping(first) == 2
    assert damping(second) == 1e6


def test_an_episode_behind_a_box_follows_from_its_seed_too() -> None:
    """The walk's reset samples its own action space, which is not the box's."""
    spec = EnvSpec(entry="tests.envs.toys:Walk", box=((-2.0,), (2.0,)))
    first, second = SeededEnv(make_env(spec)), SeededEnv(make_env(spec))
    assert first.env.action_space is not first.env.unwrapped.action_space
    np.testing.assert_array_equal(first.reset(7, 3), second.reset(7, 3))


def test_the_callers_global_generator_is_left_alone() -> None:
    before = np.random.get_state()  # noqa: NPY002
    play(SeededEnv(Walk()), 0)
    after = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(before[1], after[1])
    assert before[2:] == after[2:]  # Where it stands in those numbers.


def test_seeds_follow_from_seed_and_episode() -> None:
    seen = {episode_seeds(seed, episode) for seed in range(20) for episode in range(20)}
    assert len(seen) == 400
    assert episode_seeds(1, 2) == episode_seeds(1, 2)
