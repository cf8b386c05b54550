"""Agents that go on online exactly as they learn from the data."""

from __future__ import annotations

import abc

from deflow.agents.shared.trained import Trained
from deflow.core.agent import ONLINE, Online, Phase
from deflow.core.types import Spec


class Continuing(Trained):
    """An agent with one update, of which all its training consists, offline and online."""

    @abc.abstractmethod
    def learning(self, name: str, spec: Spec, steps: int) -> Phase:
        """The phase of this update."""

    def phases(self, spec: Spec, schedule: str) -> tuple[Phase, ...]:
        return (self.learning("joint", spec, spec.total_steps),)

    def online(self, spec: Spec, steps: int) -> Online:
        return Online(self.learning(ONLINE, spec, steps))
