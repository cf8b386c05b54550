"""What the data do, as a flow: an ordinary differential equation from noise to actions.

Straight (rectified) conditional paths x_t = (1 - t) x_0 + t a with x_0 ~ N(0, I), t ~ U[0, 1), and
the velocity target a - x_0 (Lipman et al. 2023; DeFlow eq. 3-5; FQL section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.nn.mlp import MLP


class VectorField(eqx.Module):
    """The velocity v(s, x, t). Time enters as one raw number, without Fourier features."""

    net: MLP

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        *,
        layer_norm: bool = False,
        key: PRNGKeyArray,
    ):
        self.net = MLP(
            observation_dim + action_dim + 1, action_dim, hidden, layer_norm=layer_norm, key=key
        )

    def __call__(
        self,
        observations: Float[Array, "*batch obs"],
        x: Float[Array, "*batch act"],
        t: Float[Array, "*batch 1"],
    ) -> Float[Array, "*batch act"]:
        return self.net(jnp.concatenate([observations, x, t], axis=-1))


class FlowNoise(NamedTuple):
    """The draws of one flow-matching loss."""

    x0: Float[Array, "batch act"]
    t: Float[Array, "batch 1"]


def draw_flow(key: PRNGKeyArray, shape: tuple[int, int]) -> FlowNoise:
    """Noise and times for a batch of actions [batch, act]."""
    x0_key, t_key = jax.random.split(key)
    return FlowNoise(jax.random.normal(x0_key, shape), jax.random.uniform(t_key, (shape[0], 1)))


def flow_matching_loss(
    field: VectorField,
    observations: Float[Array, "batch obs"],
    actions: Float[Array, "batch act"],
    x0: Float[Array, "batch act"],
    t: Float[Array, "batch 1"],
) -> Float[Array, ""]:
    """E || v(s, x_t, t) - (a - x_0) ||^2, averaged over the action's dimensions too."""
    x_t = (1 - t) * x0 + t * actions
    return jnp.mean(jnp.square(field(observations, x_t, t) - (actions - x0)))


def integrate(
    field: VectorField,
    observations: Float[Array, "*batch obs"],
    x0: Float[Array, "*batch act"],
    steps: int,
) -> Float[Array, "*batch act"]:
    """From noise to actions by Euler's method, t = 0, 1/steps, ...; clipped at the end."""

    def euler(x: Array, t: Array) -> tuple[Array, None]:
        times = jnp.full((*x.shape[:-1], 1), t)
        return x + field(observations, x, times) / steps, None

    x1, _ = jax.lax.scan(euler, x0, jnp.arange(steps) / steps)
    return jnp.clip(x1, -1, 1)
