"""What the members of a family lived through since it was last asked: episodes and seconds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deflow.envs.lockstep import Steps

PARTS = ("acting", "environment", "updating")
"""What an online step is made of."""


class Played:
    """Counts finished episodes, lost ones, and where the time goes."""

    def __init__(self, members: int):
        self.members = members
        self._failures = np.zeros(members, np.int64)
        self._begin()

    def _begin(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.steps = 0
        self._sums = {
            name: np.zeros(self.members) for name in ("episodes", "lost", "return", "length")
        }
        self._success, self._told = np.zeros(self.members), False

    def count(self, met: Steps) -> None:
        """Take in one step of every member."""
        self.steps += 1
        if not (met.ended.any() or met.lost.any()):
            return
        self._sums["lost"] += met.lost
        self._sums["episodes"] += met.ended
        self._sums["return"] += np.where(met.ended, met.returns, 0)
        self._sums["length"] += np.where(met.ended, met.lengths, 0)
        # An environment may tell of success only where there was one.
        told = met.ended & ~np.isnan(met.success)
        self._success += np.where(told, met.success, 0)
        self._told |= bool(told.any())

    def take(self, failures: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """By name, a value for each member; NaN where it finished no episode, and of success where
        no member's environment told of any. Counting begins anew.

        Of the environments' `failures` up to now, those that are new are counted.
        """
        episodes = self._sums["episodes"]

        def mean(total: NDArray[np.float64]) -> NDArray[np.float64]:
            nowhere = np.full(self.members, np.nan)
            found: NDArray[np.float64] = np.divide(total, episodes, out=nowhere, where=episodes > 0)
            return found

        found = {
            "online/episodes": episodes,
            "online/lost_episodes": self._sums["lost"],
            "online/failures": (failures - self._failures).astype(np.float64),
            "online/return": mean(self._sums["return"]),
            "online/length": mean(self._sums["length"]),
            "online/success": mean(self._success if self._told else self._success * np.nan),
        }
        for part, seconds in self.seconds.items():
            milliseconds = 1000 * seconds / max(self.steps, 1)
            found[f"online/{part}_ms"] = np.full(self.members, milliseconds)
        self._failures = failures.copy()
        self._begin()
        return found
