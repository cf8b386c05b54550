"""A problem small enough to train on in a second: a point in the plane that should reach a goal.

Worker processes import this module by name (`tests.toy:make`), so it stays light.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from deflow.data.dataset import Dataset

ENV = "tests.toy:make"
"""What `--env` takes."""

OBS, ACT, LIMIT = 4, 2, 20
"""Widths of an observation (point and goal) and of an action, and the steps of an episode."""

REACH, STRIDE = 0.2, 0.2

NAMES = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")


class Point(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Each step costs 1 until the point is within `REACH` of its goal, where the episode ends."""

    observation_space = spaces.Box(-2, 2, (OBS,), np.float32)
    action_space = spaces.Box(-1, 1, (ACT,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        self.state = self.np_random.uniform(-1, 1, OBS).astype(np.float32)
        return self.state.copy(), {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.state = moved(self.state, action)
        reached = near(self.state)
        return (
            self.state.copy(),
            float(reached) - 1,
            reached,
            self.steps >= LIMIT,
            {"success": float(reached)},
        )


def make() -> Point:
    return Point()


def make_blind() -> gymnasium.Env[Any, Any]:
    """The same without the goal in what is observed."""
    seen = spaces.Box(-2, 2, (2,), np.float32)
    return gymnasium.wrappers.TransformObservation(Point(), lambda state: state[:2], seen)


def moved(state: NDArray[np.float32], action: NDArray[Any]) -> NDArray[np.float32]:
    """The observation after an action."""
    point = np.clip(state[:2] + STRIDE * np.asarray(action), -1.5, 1.5)
    return np.concatenate([point, state[2:]]).astype(np.float32)


def near(state: NDArray[np.float32]) -> bool:
    return bool(np.linalg.norm(state[:2] - state[2:]) < REACH)


def arrays(episodes: int = 24, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Flat arrays as `Dataset.from_arrays` takes them.

    Even episodes go to the goal, odd ones stray, so cloning the data is no solution.
    """
    rng = np.random.default_rng(seed)
    rows: dict[str, list[Any]] = {name: [] for name in NAMES}
    for episode in range(episodes):
        state = rng.uniform(-1, 1, OBS).astype(np.float32)
        for step in range(LIMIT):
            aim = (state[2:] - state[:2]) / STRIDE
            straying = rng.uniform(-1, 1, ACT)
            good = np.clip(aim + 0.3 * rng.standard_normal(ACT), -0.99, 0.99)
            action = good if episode % 2 == 0 else straying
            after = moved(state, action)
            reached = near(after)
            rows["observations"].append(state)
            rows["actions"].append(action)
            rows["rewards"].append(float(reached) - 1)
            rows["terminals"].append(reached)
            rows["timeouts"].append(step == LIMIT - 1)
            rows["next_observations"].append(after)
            state = after
            if reached:
                break
    kinds = {"terminals": np.bool_, "timeouts": np.bool_}
    return {name: np.asarray(rows[name], kinds.get(name, np.float32)) for name in rows}


def dataset(episodes: int = 24, seed: int = 0) -> Dataset:
    """A few hundred transitions."""
    return Dataset.from_arrays(**arrays(episodes, seed), name="toy")


def save(path: Path, episodes: int = 24, seed: int = 0) -> Path:
    """The same as an .npz file, for `--data`."""
    np.savez(path, allow_pickle=False, **arrays(episodes, seed))
    return path


# Training at its smallest ----------------------------------------------------------------------

SMALL: dict[str, Any] = {"hidden": (16, 16), "batch_size": 16, "integration_steps": 4}
"""Settings of an agent that trains in a second."""

SHORT: dict[str, Any] = {
    "seeds": (0, 1),
    "steps": 40,
    "chunk": 10,
    "log_every": 20,
    "checkpoint_every": 10,
    "eval_every": 20,
    "eval_episodes": 0,
    "workers": 2,
}
"""A run of four chunks; all that happens between chunks happens at least twice."""
