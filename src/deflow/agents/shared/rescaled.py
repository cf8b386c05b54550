"""Agents that learn from rewards in units of their own."""

from __future__ import annotations

import dataclasses

from deflow.agents.shared.trained import Trained
from deflow.core.settings import setting
from deflow.core.types import Batch


class Rescaled(Trained):
    """An agent whose published runs scale and shift rewards, task by task."""

    reward_scale: float = setting(1.0, above=0)
    """Rewards are scaled by this."""
    reward_bias: float = setting(0.0, at_least=-1e6, at_most=1e6)
    """And then shifted by this."""

    def rescaled(self, batch: Batch) -> Batch:
        """The batch with rewards as the critics see them."""
        rewards = self.reward_scale * batch.rewards + self.reward_bias
        return dataclasses.replace(batch, rewards=rewards)
