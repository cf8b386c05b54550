"""The manipulation recipes: `play` by planned motions, `noisy` by Markov oracles with action noise.

Follows the published collection procedure of OGBench (Park et al., 2025): one oracle per kind of
target works until it is done, then the environment sets a new random target.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from deflow.data.names import family
from deflow.data.recipes import Episode, Recipe, Rows, seed_episode
from deflow.data.simulator import Pristine, make_env

_STACKING = {
    "cube-single": (0.0, 0.0),
    "cube-double": (0.0, 0.25),
    "cube-triple": (0.05, 0.35),
    "cube-quadruple": (0.1, 0.5),
    "cube-octuple": (0.0, 0.35),
}
"""Range of the chance that a cube's target is the top of another cube; one draw per episode."""

_RANDOM_ACTION = {"cube": 0.1, "scene": 0.1, "puzzle": 0.2}
"""Chance of a uniformly random action at each step of a `noisy` set."""

_NOISE = 0.1
_NOISE_SCALE = np.array([1.0, 1.0, 1.0, 3.0, 10.0])
"""Per action: x, y, z, yaw, gripper."""


class ManipCollector:
    """Plays cube, scene and puzzle episodes."""

    def __init__(self, recipe: Recipe) -> None:
        known = recipe.environment.removeprefix("visual-")
        self._family = family(known)
        self._noisy = recipe.kind == "noisy"
        self._stacking = _STACKING.get(known, (0.5, 0.5))
        self._random_action = _RANDOM_ACTION[self._family] if self._noisy else 0.0
        self._env = make_env(
            f"{recipe.environment}-v0",
            terminate_at_goal=False,
            mode="data_collection",
            max_episode_steps=recipe.steps,
        )
        self._world = cast(Any, self._env.unwrapped)
        # The first reset compiles the model and, unlike every later one, does not reset the physics
        # after it: without this one an episode would depend on whether it came first.
        self._env.reset(seed=0)
        self._pristine = Pristine(self._world)

    def collect(self, seed: np.random.SeedSequence) -> Episode | None:
        self._pristine.restore()
        rng = seed_episode(self._env, seed)
        stacking, noise = rng.uniform(*self._stacking), rng.uniform(0.0, _NOISE)
        oracles = self._make_oracles()
        rows = Rows()
        ob, info = self._env.reset()
        oracle = oracles[info["privileged/target_task"]]
        oracle.reset(ob, info)
        done = False
        while not done:
            if rng.random() < self._random_action:
                action = rng.uniform(-1.0, 1.0, size=5)
            else:
                action = np.asarray(oracle.select_action(ob, info))
                if self._noisy:
                    action = action + rng.normal(0.0, noise * _NOISE_SCALE)
            action = np.clip(action, -1.0, 1.0)
            next_ob, _, terminated, truncated, info = self._env.step(action)
            done = terminated or truncated
            if oracle.done:
                new_ob, new_info = self._world.set_new_target(p_stack=stacking)
                oracle = oracles[new_info["privileged/target_task"]]
                oracle.reset(new_ob, new_info)
            rows.append(
                observations=ob,
                actions=action,
                terminals=done,
                qpos=info["prev_qpos"],
                qvel=info["prev_qvel"],
            )
            if "prev_button_states" in info:
                rows.append(button_states=info["prev_button_states"])
            ob = next_ob
        episode = rows.stack()
        return None if self._family == "scene" and not _in_view(episode["qpos"]) else episode

    def _make_oracles(self) -> dict[str, Any]:
        """Fresh oracles for one episode, by the task that they carry out."""
        from ogbench.manipspace.oracles.markov.button_markov import ButtonMarkovOracle
        from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle
        from ogbench.manipspace.oracles.markov.drawer_markov import DrawerMarkovOracle
        from ogbench.manipspace.oracles.markov.window_markov import WindowMarkovOracle
        from ogbench.manipspace.oracles.plan.button_plan import ButtonPlanOracle
        from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle
        from ogbench.manipspace.oracles.plan.drawer_plan import DrawerPlanOracle
        from ogbench.manipspace.oracles.plan.window_plan import WindowPlanOracle

        classes: dict[str, Any]
        if self._noisy:
            classes = {
                "cube": CubeMarkovOracle,
                "button": ButtonMarkovOracle,
                "drawer": DrawerMarkovOracle,
                "window": WindowMarkovOracle,
            }
            settings: dict[str, Any] = {"env": self._env, "min_norm": 0.4}
        else:
            classes = {
                "cube": CubePlanOracle,
                "button": ButtonPlanOracle,
                "drawer": DrawerPlanOracle,
                "window": WindowPlanOracle,
            }
            settings = {"env": self._env, "noise": _NOISE, "noise_smoothing": 0.5}
        if self._family == "puzzle":
            return {"button": classes["button"](**settings, gripper_always_closed=True)}
        if self._family == "cube":
            return {"cube": classes["cube"](**settings)}
        # The official script also asks for max_step=100 here, which the oracle's reset overwrites.
        return {task: oracle(**settings) for task, oracle in classes.items()}


def _in_view(qpos: np.ndarray[Any, Any]) -> bool:
    """Whether the scene's cube stayed where the cameras see it: on the table or in the drawer."""
    y, z = qpos[:, 15], qpos[:, 16]
    lost = (y >= 0.29) | ((y <= -0.3) & ((z < 0.06) | (z > 0.08)))
    return not lost.any()
