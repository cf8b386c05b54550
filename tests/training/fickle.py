"""The toy in worlds that are never twice the same, or end; workers import them by name."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
from tests import toy

from deflow.envs.lockstep import APART
from deflow.envs.seeded import episode_seeds


class Fickle(toy.Point):
    """Where an episode begins depends on the process."""

    def reset(self, **options: Any) -> Any:
        super().reset(**options)
        self.state += np.float32(1e-3 * (os.getpid() % 97 + 1))
        return self.state.copy(), {}


def make() -> Fickle:
    return Fickle()


class Fatal(toy.Point):
    """Kills its own process in the fourth step of the second episode of seed 0."""

    def reset(self, *, seed: int | None = None, **options: Any) -> Any:
        self.doomed = seed == episode_seeds(APART, 1)[0]
        return super().reset(seed=seed, **options)

    def step(self, action: Any) -> Any:
        if self.doomed and self.steps == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


def make_fatal() -> Fatal:
    return Fatal()


class Frail(toy.Point):
    """Raises in its first step, but only in the first process that comes to take one."""

    def step(self, action: Any) -> Any:
        mark = Path(os.environ["DEFLOW_TEST_MARKS"]) / "raised"
        if not mark.exists():
            mark.touch()
            raise RuntimeError("a joint is stuck")
        return super().step(action)


def make_frail() -> Frail:
    return Frail()
