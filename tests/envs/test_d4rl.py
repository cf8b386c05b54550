"""D4RL's environments: maps, starts, goals, rewards, endings and horizons by D4RL's rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from tests.envs.d4rl import made

from deflow.core.errors import DeFlowError
from deflow.data.d4rl import TASKS
from deflow.envs.d4rl import DIFFERENCES, make_d4rl
from deflow.envs.make import EnvSpec, env_shapes, make_env

pytest.importorskip("gymnasium_robotics")

WIDTHS = {
    "antmaze": (29, 8),
    "maze2d": (4, 2),
    "pen": (45, 24),
    "door": (39, 28),
    "hammer": (46, 26),
    "relocate": (39, 30),
    "halfcheetah": (17, 6),
    "hopper": (11, 3),
    "walker2d": (17, 6),
}
ONE_OF_EACH = (
    "antmaze-umaze-v2",
    "antmaze-medium-play-v2",
    "antmaze-large-diverse-v2",
    "maze2d-umaze-v1",
    "maze2d-medium-v1",
    "maze2d-large-v1",
    "pen-human-v1",
    "door-cloned-v1",
    "hammer-expert-v1",
    "relocate-human-v1",
    "halfcheetah-medium-v2",
    "hopper-medium-replay-v2",
    "walker2d-medium-expert-v2",
)


def time_limit(env: Any) -> int:
    while not isinstance(env, TimeLimit):
        env = env.env
    return env._max_episode_steps


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_its_environment(name: str) -> None:
    env = make_env(EnvSpec(entry="deflow.envs.d4rl:make_d4rl", kwargs=(("name", name),)))
    width, action_dim = WIDTHS[name.split("-")[0]]
    assert env_shapes(env) == ((width,), action_dim)
    observation, _ = env.reset(seed=0)
    assert observation.shape == env.observation_space.shape
    assert time_limit(env) == TASKS[name].horizon
    env.close()


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_an_episode_follows_from_its_seed(name: str) -> None:
    def play(env: Any, seed: int) -> list[Any]:
        seen = [env.reset(seed=seed)[0]]
        for action in np.random.default_rng(0).uniform(-1, 1, (8, *env.action_space.shape)):
            observation, reward, *_ = env.step(action.astype(np.float32))
            seen.append(np.append(observation, reward))
        return seen

    first, second = made(name), made(name)
    reference = play(first, 3)
    for again in (play(second, 3), play(second, 3)):
        for ours, theirs in zip(again, reference, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert any((a != b).any() for a, b in zip(play(first, 4), reference, strict=True))


@pytest.mark.parametrize("name", ["antmaze-umaze-v2", "maze2d-umaze-v1", "pen-human-v1"])
def test_time_runs_out_where_it_does_in_d4rl(name: str) -> None:
    env, task = made(name), TASKS[name]
    env.reset(seed=0)
    world = env.unwrapped
    for step in range(1, task.horizon + 1):
        if name.startswith("pen"):  # held up, so that it is not dropped
            world.data.qpos[-4], world.data.qvel[-6:] = 0.0, 0.0
        *_, terminated, truncated, _ = env.step(np.zeros(env.action_space.shape, np.float32))
        if terminated:
            pytest.fail(f"it ended in step {step}")
        assert truncated == (step == task.horizon)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("antmaze-giant-v2", "mazes are umaze, medium, large"),
        ("antmaze-umaze-v0", "version 2"),
        ("maze2d-umaze-dense-v1", "version 1"),
        ("pen-human-v0", "version 1"),
        ("hopper-medium-v0", "version 2"),
        ("kitchen-mixed-v0", "names here begin with antmaze"),
    ],
)
def test_a_name_without_an_environment_is_said(name: str, words: str) -> None:
    with pytest.raises(DeFlowError, match=words):
        make_d4rl(name)


def test_frames_are_drawn_where_asked_for() -> None:
    for name in ("antmaze-umaze-v2", "maze2d-umaze-v1", "hopper-medium-v2", "door-human-v1"):
        spec = EnvSpec(entry="deflow.envs.d4rl:make_d4rl", kwargs=(("name", name),))
        assert make_env(spec, render=True).render_mode == "rgb_array"


def test_differences_name_environments_that_exist() -> None:
    kinds = {"all", *WIDTHS}
    for difference in DIFFERENCES:
        assert set(difference.environments.split(", ")) <= kinds
        assert difference.what.endswith(".")
        assert difference.source
