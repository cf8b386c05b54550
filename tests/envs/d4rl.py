"""D4RL's environments as the tests of this room make them."""

from __future__ import annotations

from typing import Any

from deflow.envs.d4rl import make_d4rl
from deflow.envs.make import quiet


def made(name: str) -> Any:
    """A task, without what its packages say while they load."""
    with quiet():
        return make_d4rl(name)
