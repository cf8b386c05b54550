"""What the data do, as a flow: an ordinary differential equation from noise to actions.

Conditional paths from x_0 ~ N(0, I) to an action a, with t ~ U[0, 1). The `straight` (rectified)
one, x_t = (1 - t) x_0 + t a with velocity a - x_0, is that of FQL and DeFlow (Lipman et al. 2023;
DeFlow eq. 3-5; FQL section 3); `circular`, x_t = cos(pi t / 2) x_0 + sin(pi t / 2) a, keeps the
variance (Albergo and Vanden-Eijnden 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.nn.encoder import opened
from deflow.nn.mlp import ActionNet

Path = Literal["straight", "circular"]
Solver = Literal["euler", "midpoint", "rk4"]


class VectorField(ActionNet):
    """The velocity v(s, x, t). Time enters as one raw number, without Fourier features."""

    times = 1


class FlowNoise(NamedTuple):
    """The draws of one flow-matching loss."""

    x0: Float[Array, "batch act"]
    t: Float[Array, "batch 1"]


def draw_flow(key: PRNGKeyArray, shape: tuple[int, int]) -> FlowNoise:
    """Noise and times for a batch of actions [batch, act]."""
    x0_key, t_key = jax.random.split(key)
    return FlowNoise(jax.random.normal(x0_key, shape), jax.random.uniform(t_key, (shape[0], 1)))


def interpolate(
    path: Path, x0: Float[Array, "*batch act"], x1: Float[Array, "*batch act"], t: Array
) -> tuple[Float[Array, "*batch act"], Float[Array, "*batch act"]]:
    """Where the path from noise x0 to action x1 stands at time t [*batch, 1], and its velocity."""
    if path == "straight":
        return (1 - t) * x0 + t * x1, x1 - x0
    angle = jnp.pi / 2 * t
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    return cos * x0 + sin * x1, jnp.pi / 2 * (cos * x1 - sin * x0)


def flow_matching_loss(
    field: VectorField,
    observations: Float[Array, "batch obs"],
    actions: Float[Array, "batch act"],
    x0: Float[Array, "batch act"],
    t: Float[Array, "batch 1"],
    *,
    path: Path = "straight",
    weights: Float[Array, " batch"] | float = 1.0,
) -> Float[Array, ""]:
    """E w || v(s, x_t, t) - dx_t/dt ||^2, averaged over the action's dimensions too."""
    x_t, velocity = interpolate(path, x0, actions, t)
    return jnp.mean(weights * jnp.square(field(observations, x_t, t) - velocity).mean(-1))


def integrate(
    field: Callable[[Array, Array, Array], Array],
    observations: Float[Array, "*batch obs"],
    x0: Float[Array, "*batch act"],
    steps: int,
    solver: Solver = "euler",
) -> Float[Array, "*batch act"]:
    """From noise to actions in equal steps, t = 0, 1/steps, ...; clipped at the end.

    Observations may lack the leading axes of `x0` (several samples for each state). Frames are
    encoded once, not at every step.
    """
    field, observations = opened(field, observations)
    observations = jnp.broadcast_to(observations, (*x0.shape[:-1], observations.shape[-1]))
    size = 1 / steps

    def velocity(x: Array, t: Array) -> Array:
        return field(observations, x, jnp.full((*x.shape[:-1], 1), t))

    def step(x: Array, t: Array) -> tuple[Array, None]:
        k1 = velocity(x, t)
        if solver == "euler":
            return x + size * k1, None
        k2 = velocity(x + size / 2 * k1, t + size / 2)
        if solver == "midpoint":
            return x + size * k2, None
        k3 = velocity(x + size / 2 * k2, t + size / 2)
        k4 = velocity(x + size * k3, t + size)
        return x + size / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    x1, _ = jax.lax.scan(step, x0, jnp.arange(steps) / steps)
    return jnp.clip(x1, -1, 1)
