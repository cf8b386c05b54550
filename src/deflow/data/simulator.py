"""Making OGBench's environments for the data room: quietly, and without a display."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium


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
