"""Which action to take, by a policy that climbs Q and keeps its entropy: maximum-entropy RL.

Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", arXiv 1812.05905, eq. 7. The
temperature (eq. 18) is the multiplier of -H <= -H_target: its loss is `multiplier_loss`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from jaxtyping import Array, Float

from deflow.core.types import Metrics


class Stochastic(Protocol):
    """A policy that can be sampled, and knows how likely a sample was."""

    def sample(
        self, observations: Float[Array, "*some obs"], noise: Float[Array, "*batch act"]
    ) -> tuple[Float[Array, "*batch act"], Float[Array, "*batch"]]:
        """Actions and their log-densities."""
        ...


def entropy_loss(
    policy: Stochastic,
    value: Callable[[Array, Array], Array],
    observations: Float[Array, "batch obs"],
    noise: Float[Array, "batch act"],
    temperature: float | Float[Array, ""],
) -> tuple[Float[Array, ""], Metrics]:
    """E [alpha log pi(a | s) - Q(s, a)], a ~ pi, through the action; alpha is a constant."""
    actions, log_probs = policy.sample(observations, noise)
    q = value(observations, actions)
    loss = (temperature * log_probs - q).mean()
    metrics = {"loss": loss, "q": q.mean(), "entropy": -log_probs.mean()}
    return loss, {f"actor/{name}": number for name, number in metrics.items()}
