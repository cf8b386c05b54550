"""Small environments with one peculiarity each; workers import them by name."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

UNIT = spaces.Box(-1, 1, (2,), np.float32)
LINE = spaces.Box(-np.inf, np.inf, (3,), np.float64)


class Walk(gymnasium.Env[Any, Any]):
    """A random walk of random length that draws from all three sources of randomness."""

    observation_space: spaces.Space[Any] = LINE
    action_space: spaces.Space[Any] = UNIT

    def __init__(self, tells_success: bool = True, **spaces_: spaces.Space[Any]) -> None:
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        vars(self).update(spaces_)
        self._tells = tells_success
        self._at = np.zeros(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._at = self.np_random.normal(size=3) + np.random.normal()  # noqa: NPY002
        self._at[:2] += self.action_space.sample()
        return self._at.copy(), {}

    def step(self, action: Any) -> Any:
        self._at[:2] += action
        self._at[2] += np.random.normal()  # noqa: NPY002
        ended = bool(self.np_random.random() < 0.2)
        info = {"success": float(self._at[2] > 0)} if self._tells else {}
        return self._at.copy(), float(self._at[0]), ended, False, info

    def render(self) -> Any:
        shade = int(abs(self._at[0]) * 50) % 256
        return np.full((6, 8, 3), shade, np.uint8)


class Proud(Walk):
    """Tells of success only where there was one, and writes into the action that it is given."""

    def step(self, action: Any) -> Any:
        action *= 1
        *seen, info = super().step(action)
        return (*seen, info if info["success"] else {})


class Fails(Walk):
    """Raises in its third step."""

    _steps = 0

    def step(self, action: Any) -> Any:
        self._steps += 1
        if self._steps == 3:
            raise ArithmeticError("the wheel came off")
        return (*super().step(action)[:2], False, False, {})


class Unseen(Walk):
    """Draws nothing: `render` is as Gymnasium has it."""

    render = gymnasium.Env.render


class Dies(Walk):
    """Kills its own process in its third step, as the system does where memory runs out."""

    _steps = 0

    def step(self, action: Any) -> Any:
        self._steps += 1
        if self._steps == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return (*super().step(action)[:2], False, False, {})


class Sleepy(Walk):
    """Never ends, and says to a file which process it lives in."""

    def __init__(self, notes: str) -> None:
        super().__init__()
        with open(notes, "a") as file:
            file.write(f"{os.getpid()}\n")

    def step(self, action: Any) -> Any:
        return (*super().step(action)[:2], False, False, {})


class Light(Walk):
    """Fails where its process has imported jax."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        assert "jax" not in sys.modules
        return super().reset(seed=seed)


def not_an_env() -> str:
    return "environment"


def out_of_order() -> gymnasium.Env[Any, Any]:
    raise ArithmeticError("no wheels")


NOT_CALLABLE = 3
