"""Environments that are seen: the last frames stacked, and drawing without a display."""

from __future__ import annotations

import os
import sys
from collections import deque
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from deflow.core.frames import STACK
from deflow.envs.make import EnvSpec, make_env, quiet, shows_frames
from deflow.envs.seeded import SeededEnv


class Stacked(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Shows the last `STACK` frames as [height, width, STACK x channels], oldest first.

    An episode begins with its first frame repeated, as the data's stacks do.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        with quiet():
            seen: Any = env.observation_space
        *size, channels = seen.shape
        self.observation_space = spaces.Box(0, 255, (*size, STACK * channels), np.uint8)
        self._frames: deque[NDArray[np.uint8]] = deque(maxlen=STACK)

    def reset(self, **options: Any) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        frame, info = self.env.reset(**options)
        self._frames.extend([frame] * STACK)
        return self._stack(), info

    def step(self, action: Any) -> tuple[NDArray[np.uint8], Any, bool, bool, dict[str, Any]]:
        frame, reward, terminated, truncated, info = self.env.step(action)
        self._frames.append(frame)
        return self._stack(), reward, terminated, truncated, info

    def _stack(self) -> NDArray[np.uint8]:
        return np.concatenate(self._frames, axis=-1)


def make_stacked(env: gymnasium.Env[Any, Any], spec: EnvSpec, count: int) -> list[SeededEnv]:
    """`count` environments, `env` (made from `spec`) being the first, with their frames stacked.

    Each has a model of its own, since what it draws is written into the model's colours.
    """
    made = (env, *(make_env(spec) for _ in range(count - 1)))
    return [SeededEnv(Stacked(each)) for each in made]


def draw_without_display(spec: EnvSpec) -> None:
    """Have MuJoCo draw on EGL in this process where the task is drawn and nothing else is chosen.

    To be called before MuJoCo is imported, which looks once.
    """
    if sys.platform == "linux" and shows_frames(spec):
        os.environ.setdefault("MUJOCO_GL", "egl")
