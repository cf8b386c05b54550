"""What the data do, as a consistency model: from any noise level to an action in one pass.

Song et al., "Consistency Models", arXiv 2303.01469, with the constants that the official code of
Ding and Jin, "Consistency Models as a Rich and Efficient Policy Class for Reinforcement Learning",
arXiv 2309.16984, uses for actions. An action a under noise z of level t is x = a + t z, for t from
eps to 80. f(s, x, t) names the same action on every level of one path, and f(s, x, eps) = x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from deflow.nn.mlp import MLP

EPSILON, TOP = 0.002, 80.0
"""The lowest and the highest level of noise."""
LAST_STEP = 2.0
"""The lowest level from which an action is sampled."""
SIGMA_DATA = 0.5
"""The data's deviation that the skip connection assumes."""
RHO = 7.0
"""How densely the levels stand near zero (Karras et al., arXiv 2206.00364)."""
FEWEST, MOST = 2, 150
"""Levels of the discretisation where the curriculum begins and ends."""
TIME_WIDTH = 16


def time_features(t: Float[Array, "*batch 1"]) -> Float[Array, "*batch features"]:
    """Sines, then cosines, of the level at frequencies from 1 down to 1e-4."""
    half = TIME_WIDTH // 2
    angles = t * jnp.exp(-math.log(1e4) / (half - 1) * jnp.arange(half))
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class ConsistencyModel(eqx.Module):
    """f(s, x, t) = c_skip(t) x + c_out(t) F(s, x, t), so that f(s, x, eps) = x whatever F is."""

    time_net: MLP
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
        time_key, key = jax.random.split(key)
        mish = jax.nn.mish
        widths = (2 * TIME_WIDTH,)
        self.time_net = MLP(TIME_WIDTH, TIME_WIDTH, widths, activation=mish, key=time_key)
        size = observation_dim + action_dim + TIME_WIDTH
        self.net = MLP(size, action_dim, hidden, layer_norm=layer_norm, activation=mish, key=key)

    def __call__(
        self,
        observations: Float[Array, "*batch obs"],
        x: Float[Array, "*batch act"],
        t: Float[Array, "*batch 1"],
    ) -> Float[Array, "*batch act"]:
        times = self.time_net(time_features(t))
        raw = self.net(jnp.concatenate([x, times, observations], axis=-1))
        above, variance = t - EPSILON, SIGMA_DATA**2
        skip = variance / (jnp.square(above) + variance)
        out = SIGMA_DATA * above / jnp.sqrt(jnp.square(t) + variance)
        return skip * x + out * raw


def level(index: Array, count: Array) -> Float[Array, "..."]:
    """The noise level `index` out of `count`, from eps to 80 (Karras et al., eq. 5).

    A closed form: a curriculum may change the count inside a compiled loop without a table.
    """
    low, high = EPSILON ** (1 / RHO), TOP ** (1 / RHO)
    levels: Array = (low + index / (count - 1) * (high - low)) ** RHO
    return levels


def level_count(step: Int[Array, ""], steps: int) -> Int[Array, ""]:
    """N(k) = ceil(sqrt(k / K (150^2 - 2^2) + 2^2) - 1) + 1: from 2 at k = 0 to 150 at K - 1.

    Past K it begins anew: the official code restarts the ramp whenever its training function is
    called, which makes a sawtooth of it.
    """
    share = (step % steps).astype(jnp.float32) / steps
    count = jnp.ceil(jnp.sqrt(share * (MOST**2 - FEWEST**2) + FEWEST**2) - 1) + 1
    return count.astype(jnp.int32)


class ConsistencyNoise(NamedTuple):
    """The draws of one consistency loss."""

    z: Float[Array, "batch act"]
    level: Float[Array, "batch 1"]
    """Uniform numbers that choose a level; the curriculum decides among how many."""


def draw_consistency(key: PRNGKeyArray, shape: tuple[int, int]) -> ConsistencyNoise:
    """Noise and choices of level for a batch of actions [batch, act]."""
    z_key, level_key = jax.random.split(key)
    uniform = jax.random.uniform(level_key, (shape[0], 1))
    return ConsistencyNoise(jax.random.normal(z_key, shape), uniform)


def neighbours(
    uniform: Float[Array, "batch 1"], count: Int[Array, ""]
) -> tuple[Float[Array, "batch 1"], Float[Array, "batch 1"]]:
    """Levels t1 < t2 next to each other, n ~ U{0, ..., N - 2} by a uniform number of [0, 1)."""
    # Rounding may lift a number close to 1 onto N - 1 itself.
    index = jnp.minimum(jnp.floor(uniform * (count - 1)), count - 2)
    return level(index, count), level(index + 1, count)


def consistency_loss(
    model: ConsistencyModel,
    teacher: ConsistencyModel,
    observations: Float[Array, "batch obs"],
    actions: Float[Array, "batch act"],
    noise: ConsistencyNoise,
    count: Int[Array, ""],
    *,
    scaled: bool = True,
) -> Float[Array, ""]:
    """E w (f(s, a + t2 z, t2) - f_teacher(s, a + t1 z, t1))^2 with w = 100 / (t2 - t1), or 1.

    Averaged over the action's dimensions too; the teacher is a constant.
    """
    t1, t2 = neighbours(noise.level, count)
    aim = jax.lax.stop_gradient(teacher(observations, actions + t1 * noise.z, t1))
    error = model(observations, actions + t2 * noise.z, t2) - aim
    return jnp.mean((100 / (t2 - t1) if scaled else 1.0) * jnp.square(error))


def sample_actions(
    model: ConsistencyModel,
    observations: Float[Array, "*some obs"],
    noise: Float[Array, "steps *batch act"],
) -> Float[Array, "*batch act"]:
    """Actions from noise of level 80; each further step adds noise again, of a level down to 2.

    Levels are equally spaced and as many as `noise` has; clipped at the end. Differentiable.
    Observations may lack the leading axes of a step's noise (several samples for each state).
    """
    observations = jnp.broadcast_to(observations, (*noise.shape[1:-1], observations.shape[-1]))
    x = jnp.zeros_like(noise[0])
    for i, t in enumerate(np.linspace(TOP, LAST_STEP, len(noise)).tolist()):
        deviation = math.sqrt(t**2 - EPSILON**2) if i else t
        times = jnp.full((*x.shape[:-1], 1), t)
        x = model(observations, x + deviation * noise[i], times)
    return jnp.clip(x, -1, 1)
