"""D4RL's Gym-MuJoCo tasks (v2) on the nearest version that Gymnasium registers."""

from __future__ import annotations

from typing import Any

import gymnasium

from deflow.core.errors import DeFlowError

ENVIRONMENTS = {
    "halfcheetah": "HalfCheetah-v4",
    "hopper": "Hopper-v4",
    "walker2d": "Walker2d-v4",
}
"""Version 4 is version 2 on the new bindings; version 5 changes rewards and models."""


def make(first: str, rest: str, render_mode: str | None) -> gymnasium.Env[Any, Any]:
    """The environment that scores `<first>-<rest>`, with its time limit of 1000 steps."""
    if not rest.endswith("-v2"):
        raise DeFlowError(
            f"There is no environment for {f'{first}-{rest}'!r}; Gym-MuJoCo sets are of version 2, "
            f"such as '{first}-medium-v2'."
        )
    return gymnasium.make(ENVIRONMENTS[first], render_mode=render_mode, disable_env_checker=True)
