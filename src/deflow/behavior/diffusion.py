"""What the data do, as a diffusion: a network that predicts the noise in a noisy action.

a_t = alpha_t a + sigma_t eps with alpha_t^2 + sigma_t^2 = 1 (variance preserving). The discrete
levels and their ancestral sampler are IDQL's (arXiv 2304.10573, section 4 and its code; DDPM, Ho et
al., arXiv 2006.11239, algorithms 1 and 2); continuous time is SRPO's (arXiv 2310.07297).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.nn.mlp import MLP
from deflow.nn.resnet import Fourier, ResNet

Scales = tuple[Float[Array, "*batch 1"], Float[Array, "*batch 1"]]
"""alpha_t and sigma_t: how much of the action is left, and how much noise there is."""


class NoiseModel(eqx.Module):
    """eps(s, a_t, t): the noise in a noisy action. Times are [*batch, 1], levels being 0, 1, ..."""

    time_features: ClassVar[int] = 64
    time_hidden: ClassVar[int] = 128

    fourier: Fourier
    condition: MLP
    net: ResNet

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        *,
        width: int = 256,
        blocks: int = 3,
        key: PRNGKeyArray,
    ):
        keys = jax.random.split(key, 3)
        hidden, mish = self.time_hidden, jax.nn.mish
        self.fourier = Fourier(self.time_features, key=keys[0])
        self.condition = MLP(self.time_features, hidden, (hidden,), activation=mish, key=keys[1])
        size = action_dim + observation_dim + hidden
        self.net = ResNet(size, action_dim, width=width, blocks=blocks, key=keys[2])

    def __call__(
        self,
        observations: Float[Array, "*batch obs"],
        noisy: Float[Array, "*batch act"],
        t: Float[Array, "*batch 1"],
        dropout: Float[Array, "blocks *batch width"] | None = None,
    ) -> Float[Array, "*batch act"]:
        inputs = [noisy, observations, self.condition(self.fourier(t))]
        return self.net(jnp.concatenate(inputs, axis=-1), dropout)


# Schedules -------------------------------------------------------------------------------------


def betas(steps: int) -> Float[Array, " steps"]:
    """beta_t = 1 - exp(-b / T - (B - b)(2t - 1) / (2 T^2)), t = 1, ..., T; b = 0.1, B = 10."""
    t = jnp.arange(1, steps + 1)
    return 1 - jnp.exp(-0.1 / steps - 0.5 * (10 - 0.1) * (2 * t - 1) / steps**2)


def discrete_scales(level: Float[Array, "*batch 1"], steps: int) -> Scales:
    """Of the levels 0, ..., steps - 1: alpha_t^2 is the product of 1 - beta up to and with t."""
    left = jnp.cumprod(1 - betas(steps))[level.astype(int)]
    return jnp.sqrt(left), jnp.sqrt(1 - left)


def continuous_scales(t: Float[Array, "*batch 1"]) -> Scales:
    """Of times in (0, 1]: log alpha_t = -t^2 (20 - 0.1) / 4 - 0.1 t / 2."""
    log_alpha = -(t**2) * (20 - 0.1) / 4 - 0.1 * t / 2
    return jnp.exp(log_alpha), jnp.sqrt(-jnp.expm1(2 * log_alpha))


def draw_levels(key: PRNGKeyArray, size: int, steps: int) -> Float[Array, "size 1"]:
    """Levels, all as likely."""
    return jax.random.randint(key, (size, 1), 0, steps).astype(jnp.float32)


# Loss ------------------------------------------------------------------------------------------


class DiffusionNoise(NamedTuple):
    """The draws of one loss."""

    noise: Float[Array, "batch act"]
    t: Float[Array, "batch 1"]
    dropout: Float[Array, "blocks batch width"] | None = None


def perturb(
    actions: Float[Array, "*batch act"], noise: Float[Array, "*batch act"], scales: Scales
) -> Float[Array, "*batch act"]:
    """a_t = alpha_t a + sigma_t eps."""
    return scales[0] * actions + scales[1] * noise


def noise_loss(
    model: NoiseModel,
    observations: Float[Array, "batch obs"],
    actions: Float[Array, "batch act"],
    noise: DiffusionNoise,
    scales: Scales,
) -> Float[Array, ""]:
    """E || eps(s, a_t, t) - eps ||^2, a sum over the action's dimensions; no weight on times."""
    noisy = perturb(actions, noise.noise, scales)
    guess = model(observations, noisy, noise.t, noise.dropout)
    return jnp.square(guess - noise.noise).sum(-1).mean()


# Sampler ---------------------------------------------------------------------------------------


def denoise(
    model: Callable[[Array, Array, Array], Array],
    observations: Float[Array, "*some obs"],
    noise: Float[Array, "*batch steps act"],
) -> Float[Array, "*batch act"]:
    """From noise to actions by ancestral steps, one a level, each cut to the box.

    `noise[..., 0, :]` is where it starts and `noise[..., i, :]` is added after step i; after the
    last nothing is. Observations may lack leading axes of the noise (several samples for each).
    """
    start, *added = jnp.moveaxis(noise, -2, 0)
    steps = len(added) + 1
    observations = jnp.broadcast_to(observations, (*start.shape[:-1], observations.shape[-1]))
    beta = betas(steps)

    def step(x: Array, inputs: tuple[Array, Array]) -> tuple[Array, None]:
        level, z = inputs
        t = jnp.full((*x.shape[:-1], 1), level, x.dtype)
        _, sigma = discrete_scales(t, steps)
        mean = (x - beta[level] / sigma * model(observations, x, t)) / jnp.sqrt(1 - beta[level])
        return jnp.clip(mean + jnp.sqrt(beta[level]) * z, -1, 1), None

    each = jnp.stack([*added, jnp.zeros_like(start)])
    actions: Array = jax.lax.scan(step, start, (jnp.arange(steps)[::-1], each))[0]
    return actions
