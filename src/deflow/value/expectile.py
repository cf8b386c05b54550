"""How good a state is, as an expectile of its actions' values: nothing outside the data is asked.

Kostrikov et al., "Offline Reinforcement Learning with Implicit Q-Learning", arXiv 2110.06169.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.core.types import Metrics
from deflow.nn.mlp import MLP, gelu


class StateValue(eqx.Module):
    """V(s), one network."""

    net: MLP

    def __init__(
        self,
        observation_dim: int,
        hidden: Sequence[int],
        *,
        layer_norm: bool = True,
        activation: Callable[[Array], Array] = gelu,
        key: PRNGKeyArray,
    ):
        self.net = MLP(
            observation_dim, 1, hidden, layer_norm=layer_norm, activation=activation, key=key
        )

    def __call__(self, observations: Float[Array, "*batch obs"]) -> Float[Array, "*batch"]:
        return self.net(observations)[..., 0]


def expectile_loss(
    value: StateValue,
    observations: Float[Array, "batch obs"],
    q: Float[Array, " batch"],
    expectile: float | Float[Array, ""],
) -> tuple[Float[Array, ""], Metrics]:
    """E |tau - 1(q < v)| (q - v)^2 (eq. 5): above one half, errors from below weigh more."""
    v = value(observations)
    weights = jnp.where(q >= v, expectile, 1 - expectile)
    loss = jnp.mean(weights * jnp.square(q - v))
    metrics = {"loss": loss, "v_mean": v.mean(), "v_min": v.min(), "v_max": v.max()}
    return loss, {f"value/{name}": number for name, number in metrics.items()}
