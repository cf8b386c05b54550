"""The toy in a world that is never twice the same; workers import it by name."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from tests import toy


class Fickle(toy.Point):
    """Where an episode begins depends on the process."""

    def reset(self, **options: Any) -> Any:
        super().reset(**options)
        self.state += np.float32(1e-3 * (os.getpid() % 97 + 1))
        return self.state.copy(), {}


def make() -> Fickle:
    return Fickle()
