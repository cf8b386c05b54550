"""The toy as it looks: a bright square on a board of 8 x 8 pixels, to be moved to the middle.

Worker processes import this module by name (`tests.seen:make`), so it stays light.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from deflow.data.dataset import Dataset

ENV = "tests.seen:make"

SIDE, LIMIT = 8, 4
FRAME = (SIDE, SIDE, 3)

SMALL: dict[str, Any] = {"hidden": (8,), "batch_size": 8}


class Board(gymnasium.Env[NDArray[np.uint8], NDArray[np.float32]]):
    """A square that an action moves by up to two pixels; every step costs its distance."""

    observation_space = spaces.Box(0, 255, FRAME, np.uint8)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.at = 0, self.np_random.uniform(1, SIDE - 2, 2)
        return draw(self.at, self.steps), {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.at = np.clip(self.at + 2 * np.asarray(action), 0, SIDE - 2)
        away = float(np.abs(self.at - SIDE / 2).max())
        ended = self.steps >= LIMIT
        return draw(self.at, self.steps), -away, False, ended, {"success": float(away < 2)}


def make() -> Board:
    return Board()


def draw(at: NDArray[Any], step: int) -> NDArray[np.uint8]:
    """A frame; its blue tells the step, so that every frame of a stack is told from the others."""
    frame = np.zeros(FRAME, np.uint8)
    x, y = np.round(at).astype(int)
    frame[x : x + 2, y : y + 2, 0] = 255
    frame[..., 2] = 10 * step
    return frame


def dataset(episodes: int = 6, seed: int = 0) -> Dataset:
    """Random play; the last frame of an episode is only a next observation."""
    rng, env = np.random.default_rng(seed), Board()
    frames, actions, rewards = [], [], []
    for episode in range(episodes):
        frame, _ = env.reset(seed=episode)
        for _ in range(LIMIT):
            action = rng.uniform(-0.9, 0.9, 2)
            after, reward, *_ = env.step(action)
            frames.append(frame)
            actions.append(action)
            rewards.append(reward)
            frame = after
        frames.append(frame)
        actions.append(np.zeros(2))
        rewards.append(0.0)
    count = len(frames)
    return Dataset.from_arrays(
        observations=np.stack(frames),
        actions=np.asarray(actions, np.float32),
        rewards=np.asarray(rewards, np.float32),
        terminals=np.zeros(count, np.bool_),
        lengths=[LIMIT + 1] * episodes,
        name="seen",
    )
