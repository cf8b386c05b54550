"""Making OGBench's environments for the data room: quietly, and without a display."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import gymnasium
import numpy as np


def make_env(env_id: str, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Make a registered OGBench environment, e.g. `scene-v0`; `kwargs` go to its constructor."""
    with warnings.catch_warnings():
        ignore_noise()
        import ogbench  # noqa: F401  (registers the environments)

        return gymnasium.make(env_id, disable_env_checker=True, **kwargs)


def ignore_noise() -> None:
    """Silence two warnings that say nothing of use here, for this process.

    MuJoCo's viewer warns where there is no display, and Gymnasium whenever OGBench makes its action
    space (each time it is asked for).
    """
    warnings.filterwarnings("ignore", module="glfw")
    warnings.filterwarnings("ignore", message=".*precision lowered by casting.*")


class Pristine:
    """What a manipulation environment is like just now, so that every episode can begin with it.

    A reset alone does not do: the targets and locks of the episode before stay in the environment
    and in its model, and the step after a change of task reads them.
    """

    _LARGE = 1 << 20  # Bytes; only meshes and textures are so large, and nothing changes them.

    def __init__(self, world: Any) -> None:
        self._world = world
        self._attributes = copy.deepcopy({k: v for k, v in vars(world).items() if _is_plain(v)})
        arrays = (getattr(world._model, name) for name in dir(world._model) if name[0] != "_")
        views = [a for a in arrays if isinstance(a, np.ndarray) and a.nbytes < self._LARGE]
        self._model = [(view, view.copy()) for view in views]

    def restore(self) -> None:
        """Give the environment back its attributes, its model's numbers, and unused physics."""
        import mujoco

        for view, value in self._model:
            np.copyto(view, value)
        vars(self._world).update(copy.deepcopy(self._attributes))
        self._world._data = mujoco.MjData(self._world._model)


def _is_plain(value: Any) -> bool:
    """Whether a value is data alone: numbers, words, arrays, and collections of these."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, np.ndarray):
        return not value.dtype.hasobject
    return value is None or isinstance(value, bool | int | float | str | np.generic)
