"""D4RL's Adroit tasks (v1) through gymnasium-robotics, with what differs there mended."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import gymnasium
import numpy as np

from deflow.core.errors import DeFlowError

ENVIRONMENTS = {
    "pen": "AdroitHandPen-v1",
    "door": "AdroitHandDoor-v1",
    "hammer": "AdroitHandHammer-v1",
    "relocate": "AdroitHandRelocate-v1",
}
HORIZONS = {"pen": 100, "door": 200, "hammer": 200, "relocate": 200}
HELD = {"pen": 20, "door": 25, "hammer": 25, "relocate": 25}
"""An episode succeeds where the goal was achieved in more than so many of its steps."""
DROPPED = 0.075
"""Height below which the pen counts as dropped."""
REACH = 0.1
"""Weight of the distance from palm to object in the reward, with a minus sign in D4RL."""


def make(first: str, rest: str, render_mode: str | None) -> gymnasium.Env[Any, Any]:
    """The environment that scores `<first>-<rest>`, with its time limit."""
    if not rest.endswith("-v1"):
        raise DeFlowError(
            f"There is no environment for {f'{first}-{rest}'!r}; Adroit sets are of version 1, "
            f"such as '{first}-human-v1'."
        )
    try:
        # On import it tells of the fault in its rewards, which is mended here.
        with contextlib.redirect_stderr(io.StringIO()):
            import gymnasium_robotics
    except ImportError as error:
        raise DeFlowError(
            "Adroit's environments need the package gymnasium-robotics: pip install '.[d4rl]' in a "
            "clone of DeFlow."
        ) from error
    gymnasium.register_envs(gymnasium_robotics)
    env = gymnasium.make(
        ENVIRONMENTS[first],
        max_episode_steps=HORIZONS[first],
        render_mode=render_mode,
        disable_env_checker=True,
    )
    return AsInD4RL(env, first)


class AsInD4RL(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An Adroit environment of gymnasium-robotics with D4RL's reward and ending.

    The distance from palm to object (door, hammer, relocate) is subtracted from the reward where
    the release underneath adds it; the pen's episode ends where the pen is dropped.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], kind: str) -> None:
        super().__init__(env)
        self._kind = kind
        self._excess = 0.0 if kind == "pen" else REACH + reach_weight(env.unwrapped, kind)
        self._held = 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self._held = 0
        return super().reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Gymnasium's step, scored as in D4RL."""
        observation, reward, terminated, truncated, info = super().step(action)
        world: Any = self.unwrapped
        if self._excess:
            reward = float(reward) - self._excess * _palm_to_object(world, self._kind)
        if self._kind == "pen":
            terminated = bool(world.data.xpos[world.obj_body_id][2] < DROPPED)
        self._held += bool(info["success"])
        info = {**info, "success": float(self._held > HELD[self._kind])}
        return observation, float(reward), terminated, truncated, info


def reach_weight(world: Any, kind: str) -> float:
    """With which weight the installed release counts the distance from palm to object, measured.

    One step is taken from a start where every other term of the reward is known. D4RL's weight is
    -0.1; gymnasium-robotics up to 1.4.2 has +0.1.

    Raises:
        DeFlowError: it is neither, so the rewards would not be D4RL's.
    """
    world.reset(seed=0)
    reward = float(world.step(np.zeros(world.action_space.shape))[1])
    world.np_random = np.random.default_rng()  # Two that nobody seeds must not play the same.
    rest = {"door": _door, "hammer": _hammer, "relocate": _relocate}[kind](world)
    weight = (reward - rest) / _palm_to_object(world, kind)
    for known in (-REACH, REACH):
        if abs(weight - known) < 1e-6:
            return known
    raise DeFlowError(
        f"The installed gymnasium-robotics rewards {ENVIRONMENTS[kind]} neither as D4RL nor as its "
        "releases up to 1.4.2 do; install gymnasium-robotics 1.4.2."
    )


def _palm_to_object(world: Any, kind: str) -> float:
    data = world.data
    if kind == "door":
        palm, thing = data.site_xpos[world.grasp_site_id], data.site_xpos[world.handle_site_id]
    else:
        palm, thing = data.site_xpos[world.S_grasp_site_id], data.xpos[world.obj_body_id]
    return float(np.linalg.norm(palm - thing))


def _door(world: Any) -> float:
    """A closed door's reward without the palm's term."""
    hinge = float(world.data.qpos[world.door_hinge_addrs])
    return -0.1 * (hinge - 1.57) ** 2 - 1e-5 * float(np.sum(world.data.qvel**2))


def _hammer(world: Any) -> float:
    """The reward without the palm's term, while the hammer lies and the nail stands out."""
    sites = world.data.site_xpos
    nail = sites[world.target_obj_site_id]
    reach = float(np.linalg.norm(sites[world.tool_site_id] - nail))
    depth = float(np.linalg.norm(nail - sites[world.goal_site_id]))
    speed = float(np.linalg.norm(world.data.qvel))
    height = min(world.data.xpos[world.obj_body_id][2], sites[world.tool_site_id][2])
    return -reach - 10 * depth - 1e-2 * speed + (2.0 if height > 0.04 else 0.0)


def _relocate(world: Any) -> float:
    """The reward without the palm's term, while the ball lies on the table."""
    del world
    return 0.0
