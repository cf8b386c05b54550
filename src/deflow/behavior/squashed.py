"""What to do, as a Gaussian that tanh bends into the box: a = tanh(u), u ~ N(mu(s), sigma(s)).

Haarnoja et al., "Soft Actor-Critic", arXiv 1801.01290, appendix C. Both forms of the deviation are
here: a second head (OGBench's SAC, FQL's RLPD), and a head that two learnt numbers scale and shift
(Cal-QL).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.behavior.gaussian import HEAD_SCALE
from deflow.nn.mlp import MLP, gelu


class Squashed(eqx.Module):
    """pi(a | s) with a deviation for every state; both heads begin near zero."""

    bounds: ClassVar[tuple[float, float]] = (-5.0, 2.0)
    """Where log sigma is cut."""

    net: MLP

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        *,
        layer_norm: bool = False,
        activation: Callable[[Array], Array] = gelu,
        key: PRNGKeyArray,
    ):
        # One kernel for both heads, with the variance that each would have by itself.
        width = hidden[-1]
        scale = HEAD_SCALE * (width + 2 * action_dim) / (width + action_dim)
        self.net = MLP(
            observation_dim,
            2 * action_dim,
            hidden,
            layer_norm=layer_norm,
            activation=activation,
            final_scale=scale,
            key=key,
        )

    def log_deviation(self, head: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
        """log sigma, before it is cut, of what the second head says."""
        return head

    def __call__(
        self, observations: Float[Array, "*batch obs"]
    ) -> tuple[Float[Array, "*batch act"], Float[Array, "*batch act"]]:
        """mu and log sigma of u, the action before tanh."""
        means, head = jnp.split(self.net(observations), 2, axis=-1)
        return means, jnp.clip(self.log_deviation(head), *self.bounds)

    def sample(
        self, observations: Float[Array, "*some obs"], noise: Float[Array, "*batch act"]
    ) -> tuple[Float[Array, "*batch act"], Float[Array, "*batch"]]:
        """Actions and their log-densities, for standard normal noise; one action for each
        observation, or several where the noise has further leading axes."""
        means, log_stds = self(observations)
        u = means + jnp.exp(log_stds) * noise
        normal = -jnp.square(noise) / 2 - log_stds - math.log(2 * math.pi) / 2
        return jnp.tanh(u), (normal - log_slope(u)).sum(-1)

    def mode(self, observations: Float[Array, "*batch obs"]) -> Float[Array, "*batch act"]:
        """tanh(mu), the deterministic action, used in evaluation: the median, not the mode."""
        return jnp.tanh(self(observations)[0])


class ScaledSquashed(Squashed):
    """Cal-QL's form: log sigma = w x + b with numbers w and b that are learnt, from 1 and -1."""

    bounds: ClassVar[tuple[float, float]] = (-20.0, 2.0)

    multiplier: Float[Array, ""]
    offset: Float[Array, ""]

    def __init__(self, *sizes: Any, **options: Any):
        """As `Squashed`, but with ReLU where nothing is said."""
        super().__init__(*sizes, **{"activation": jax.nn.relu, **options})
        self.multiplier, self.offset = jnp.ones(()), -jnp.ones(())

    def log_deviation(self, head: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
        return self.multiplier * head + self.offset


def log_slope(u: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """log(1 - tanh(u)^2), by a form that neither rounds to log 0 nor overflows."""
    return 2 * (math.log(2) - u - jax.nn.softplus(-2 * u))
