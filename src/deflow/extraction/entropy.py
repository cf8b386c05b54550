"""Which action to take, by a policy that climbs Q and keeps its entropy: maximum-entropy RL.

Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", arXiv 1812.05905, eq. 7 and 18:
the temperature is the multiplier of a constraint on the entropy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deflow.core.types import Metrics
from deflow.extraction.multiplier import MultiplierForm


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


def temperature_loss(
    log_temperature: Float[Array, ""],
    entropy: Float[Array, ""],
    target: float | Float[Array, ""],
    form: MultiplierForm = "linear",
) -> Float[Array, ""]:
    """alpha (H - H_target), alpha = exp(.): too little entropy raises alpha, too much lowers it.

    `log` puts log alpha in alpha's place, as Cal-QL's code does, so that the pace does not depend
    on alpha itself.
    """
    weight = log_temperature if form == "log" else jnp.exp(log_temperature)
    return weight * (jax.lax.stop_gradient(entropy) - target)
