"""Environments that are seen: stacks of frames through the pool, as the data have them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from tests import seen

from deflow.core.frames import STACK
from deflow.envs import stacking
from deflow.envs.make import EnvSpec, env_shapes, make_env, shows_frames
from deflow.envs.pool import EnvPool
from deflow.envs.render import rendering_backend
from deflow.envs.rollout import rollout
from deflow.envs.stacking import Stacked

SPEC = EnvSpec(entry=seen.ENV)


def steps_of(stack: np.ndarray) -> list[int]:
    """Which steps a stack shows: the blue of a frame is ten times its step."""
    return (stack[0, 0, 2::3] // 10).tolist()


def test_a_seen_environment_is_accepted() -> None:
    assert env_shapes(make_env(SPEC)) == (seen.FRAME, 2)


def test_a_stack_begins_with_the_first_frame_repeated() -> None:
    env = Stacked(make_env(SPEC))
    for _ in range(2):  # A second episode remembers nothing of the first.
        observation, _ = env.reset(seed=0)
        found = [steps_of(observation)]
        for _ in range(3):
            observation, *_ = env.step(np.zeros(2, np.float32))
            assert env.observation_space.contains(observation)
            found.append(steps_of(observation))
        assert found == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]


def test_what_the_environment_shows_is_what_the_data_hold() -> None:
    """The same episode, played and stored, gives the same stacks."""
    import jax.numpy as jnp

    from deflow.training.device_data import DeviceData

    data = seen.dataset(episodes=1)
    stored = np.asarray(DeviceData.from_dataset(data).observed(jnp.arange(seen.LIMIT + 1)))
    env = Stacked(seen.make())
    shown = [env.reset(seed=0)[0]]
    for action in data.actions[: seen.LIMIT]:
        shown.append(env.step(action)[0])
    np.testing.assert_array_equal(stored, shown)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_pool_carries_stacks_in_bytes(workers: int) -> None:
    seen_by_policy: list[np.ndarray] = []

    def act(observations: Any, episodes: Any, steps: Any) -> Any:
        seen_by_policy.append(observations)
        for stack, step in zip(observations[0], steps[0], strict=True):
            assert steps_of(stack) == [max(step - 2, 0), max(step - 1, 0), step]
        return np.full((*observations.shape[:2], 2), 0.5, np.float32)

    with EnvPool(SPEC, slots=3, workers=workers) as pool:
        results, _ = rollout(pool, act, range(6), seed=7)
    assert seen_by_policy[0].shape == (1, 3, seen.SIDE, seen.SIDE, 3 * STACK)
    assert seen_by_policy[0].dtype == np.uint8
    assert [result.length for result in results[0]] == [seen.LIMIT] * 6
    returns = [result.return_ for result in results[0]]
    assert len(set(returns)) > 2


def test_only_what_is_drawn_asks_for_a_way_of_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    visual = EnvSpec(env_id="visual-cube-single-singletask-task1-v0")
    plain = EnvSpec(env_id="cube-single-singletask-task1-v0")
    assert [shows_frames(spec) for spec in (visual, plain, SPEC)] == [True, False, False]
    monkeypatch.setattr(stacking.sys, "platform", "linux")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    stacking.draw_without_display(plain)
    assert "MUJOCO_GL" not in os.environ
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    stacking.draw_without_display(visual)
    assert os.environ["MUJOCO_GL"] == "osmesa"
    monkeypatch.delenv("MUJOCO_GL")
    stacking.draw_without_display(visual)
    assert os.environ["MUJOCO_GL"] == "egl"


def test_a_visual_task_of_ogbench_is_shown_in_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    if rendering_backend() != "egl":
        pytest.skip("this machine cannot draw on EGL")
    spec = EnvSpec(env_id="visual-cube-single-singletask-task1-v0")
    with EnvPool(spec, 1, 1) as pool:
        assert pool.board.observations.shape == (1, 64, 64, 3 * STACK)
        pool.reset(0, np.zeros(1, np.int64))
        first = pool.board.observations[0].copy()
        pool.step(np.full((1, 5), 1, np.float32), np.full(1, -1))
        second = pool.board.observations[0].copy()
    assert first.std() > 10
    np.testing.assert_array_equal(first[..., :3], first[..., 6:])
    np.testing.assert_array_equal(second[..., :6], first[..., 3:])
    assert (second[..., 6:] != first[..., 6:]).any()
