"""D4RL's Adroit tasks: its reward and its endings, whatever release lies underneath."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from tests.envs.d4rl import made

from deflow.core.errors import DeFlowError

pytest.importorskip("gymnasium_robotics")


def d4rl_reward(kind: str, world: Any) -> float:
    """D4RL's reward of the state that the world is in."""
    data = world.data
    if kind == "pen":
        thing, goal = data.xpos[world.obj_body_id], data.site_xpos[world.eps_ball_site_id]
        ours = data.site_xpos[world.obj_t_site_id] - data.site_xpos[world.obj_b_site_id]
        aim = data.site_xpos[world.tar_t_site_id] - data.site_xpos[world.tar_b_site_id]
        distance = np.linalg.norm(thing - goal)
        similar = ours @ aim / (world.pen_length * world.tar_length)
        near = distance < 0.075
        reward = similar - distance + 10 * (near and similar > 0.9) + 50 * (near and similar > 0.95)
        return float(reward - 5 * (thing[2] < 0.075))
    if kind == "door":
        hinge = data.qpos[world.door_hinge_addrs]
        reach = data.site_xpos[world.grasp_site_id] - data.site_xpos[world.handle_site_id]
        cost = 0.1 * np.linalg.norm(reach) + 0.1 * (hinge - 1.57) ** 2 + 1e-5 * sum(data.qvel**2)
        return float(2 * (hinge > 0.2) + 8 * (hinge > 1) + 10 * (hinge > 1.35) - cost)
    palm, thing = data.site_xpos[world.S_grasp_site_id], data.xpos[world.obj_body_id]
    goal = data.site_xpos[world.target_obj_site_id]
    reward = -0.1 * np.linalg.norm(palm - thing)
    if kind == "relocate":
        distance = np.linalg.norm(thing - goal)
        if thing[2] > 0.04:
            reward += 1 - 0.5 * np.linalg.norm(palm - goal) - 0.5 * distance
        return float(reward + 10 * (distance < 0.1) + 20 * (distance < 0.05))
    head, depth = data.site_xpos[world.tool_site_id], data.site_xpos[world.goal_site_id]
    gap = np.linalg.norm(goal - depth)
    reward -= np.linalg.norm(head - goal) + 10 * gap + 1e-2 * np.linalg.norm(data.qvel)
    reward += 2 * (thing[2] > 0.04 and head[2] > 0.04)
    return float(reward + 25 * (gap < 0.02) + 75 * (gap < 0.01))


@pytest.mark.parametrize("kind", ["pen", "door", "hammer", "relocate"])
def test_adroit_is_rewarded_as_in_d4rl(kind: str) -> None:
    env = made(f"{kind}-expert-v1")
    rng = np.random.default_rng(0)
    for episode in range(2):
        env.reset(seed=episode)
        for _ in range(40):
            _, reward, terminated, _, _ = env.step(rng.uniform(-1, 1, env.action_space.shape))
            np.testing.assert_allclose(reward, d4rl_reward(kind, env.unwrapped), atol=1e-9)
            if terminated:
                break


class Release(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Another release of gymnasium-robotics, which weighs the palm's distance as said."""

    def __init__(self, env: Any, kind: str, weight: float) -> None:
        from deflow.envs.d4rl import adroit

        super().__init__(env)
        self._palm = lambda: adroit._palm_to_object(env, kind)
        self._more = weight - adroit.reach_weight(env, kind)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    @property
    def unwrapped(self) -> Any:
        return self

    def step(self, action: Any) -> Any:
        observation, reward, *rest = self.env.step(action)
        return observation, reward + self._more * self._palm(), *rest


@pytest.mark.parametrize("kind", ["door", "hammer", "relocate"])
def test_the_reward_is_mended_only_where_the_release_has_the_fault(kind: str) -> None:
    from deflow.envs.d4rl.adroit import AsInD4RL

    world = made(f"{kind}-expert-v1").unwrapped
    for weight in (0.1, -0.1):
        env = AsInD4RL(Release(world, kind, weight), kind)
        env.reset(seed=0)
        for _ in range(3):
            _, reward, *_ = env.step(np.full(world.action_space.shape, 0.3))
            np.testing.assert_allclose(reward, d4rl_reward(kind, world), atol=1e-9)
    with pytest.raises(DeFlowError, match="neither as D4RL nor"):
        AsInD4RL(Release(world, kind, 0.3), kind)


def test_a_dropped_pen_ends_the_episode() -> None:
    env = made("pen-human-v1")
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(100):
        _, reward, terminated, _, info = env.step(rng.uniform(-1, 1, 24))
        height = env.unwrapped.data.xpos[env.unwrapped.obj_body_id][2]
        assert terminated == (height < 0.075)
        if terminated:
            assert reward < -4
            assert info["success"] == 0.0
            return
    pytest.fail("the pen was never dropped")


def test_adroit_succeeds_where_the_goal_was_held() -> None:
    env = made("door-human-v1")
    world = env.unwrapped
    env.reset(seed=0)
    for held in range(1, 31):
        world.data.qpos[world.door_hinge_addrs] = 1.5
        world.data.qvel[:] = 0
        *_, info = env.step(np.zeros(28))
        assert info["success"] == float(held > 25)
    env.reset(seed=0)
    assert env.step(np.zeros(28))[-1]["success"] == 0.0


def test_two_that_nobody_seeds_play_differently() -> None:
    first, second = made("door-human-v1"), made("door-human-v1")
    assert (first.reset()[0] != second.reset()[0]).any()
