"""D4RL's environments on today's MuJoCo, without mujoco-py and the old gym."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deflow.core.errors import DeFlowError
from deflow.envs.d4rl.differences import DIFFERENCES, Difference

if TYPE_CHECKING:
    import gymnasium

__all__ = ["DIFFERENCES", "Difference", "make_d4rl"]

_MODULES = {
    "antmaze": "antmaze",
    "maze2d": "maze2d",
    **dict.fromkeys(("pen", "door", "hammer", "relocate"), "adroit"),
    **dict.fromkeys(("halfcheetah", "hopper", "walker2d"), "locomotion"),
}


def make_d4rl(name: str, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """The environment that scores a D4RL task, by the name of the task's dataset.

    Observations are vectors, actions lie in [-1, 1]; the time limit is D4RL's. `info["success"]` is
    1.0 once the goal has been reached (ant maze, Maze2D) or held long enough (Adroit), else 0.0;
    locomotion has none. Where it departs from D4RL is said in `DIFFERENCES`.

    Args:
        name: such as `antmaze-large-play-v2`, `pen-expert-v1`, `maze2d-umaze-v1`.
        render_mode: as in Gymnasium; `rgb_array` to get frames.

    Raises:
        DeFlowError: the name stands for no environment here, or its package is not installed.
    """
    first, _, rest = name.partition("-")
    if first not in _MODULES:
        raise DeFlowError(
            f"There is no D4RL environment for {name!r}; names here begin with "
            f"{', '.join(_MODULES)}."
        )
    maker = import_module(f"deflow.envs.d4rl.{_MODULES[first]}")
    env: gymnasium.Env[Any, Any] = maker.make(first, rest, render_mode)
    return env
