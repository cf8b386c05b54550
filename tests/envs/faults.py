"""Environments that fail where they are told to; workers import them by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import RescaleAction
from tests.envs.toys import Walk


class Faulty(Walk):
    """A walk of eight steps with a fault in some episodes, which it knows by their reset seeds.

    `faults` are (reset seed, kind, step); in step 0, the reset itself fails.
    """

    def __init__(self, faults: tuple[tuple[int, str, int], ...] = ()) -> None:
        super().__init__()
        self._faults = {seed: (kind, step) for seed, kind, step in faults}
        self._fault: tuple[str, int] | None = None
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._steps = 0
        self._fault = self._faults.get(seed) if seed is not None else None
        self._fail()
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        self._steps += 1
        self._fail()
        observation, reward, *_, info = super().step(action)
        if self._fault == ("nan", self._steps):
            observation[0] = np.nan
        if self._fault == ("huge", self._steps):
            observation[0] = 1e39
        if self._fault == ("inf", self._steps):
            reward = np.inf
        if self._fault == ("huge reward", self._steps):
            reward = 1e39
        return observation, reward, False, self._steps == 8, info

    def _fail(self) -> None:
        if self._fault is None or self._fault[1] != self._steps:
            return
        if self._fault[0] == "raise":
            raise ArithmeticError("the [wheel] came off")
        if self._fault[0] == "hang":
            time.sleep(3600)
        if self._fault[0] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)


class Unmakeable(Walk):
    """Can be made once; its first step fails, and making it again fails too."""

    def __init__(self, mark: str) -> None:
        super().__init__()
        if Path(mark).exists():
            raise OSError("the licence has run out")
        Path(mark).touch()

    def step(self, action: Any) -> Any:
        raise ArithmeticError("the wheel came off")


class Hanging(Walk):
    """Cannot be made within an hour."""

    def __init__(self) -> None:
        time.sleep(3600)


class Meeting(Walk):
    """Takes a step only while the other one is taking one too; they meet in a folder."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = Path(folder)

    def step(self, action: Any) -> Any:
        (self._folder / str(os.getpid())).touch()
        until = time.monotonic() + 20
        while len(list(self._folder.iterdir())) < 2:
            if time.monotonic() > until:
                raise TimeoutError("nobody came")
            time.sleep(0.005)
        return (*super().step(action)[:2], False, False, {})


def pendulum() -> gymnasium.Env[Any, Any]:
    return RescaleAction(
        gymnasium.make("Pendulum-v1", max_episode_steps=7), np.float32(-1), np.float32(1)
    )
