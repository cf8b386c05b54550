"""What the data do, as one action for each state: the mean of a Gaussian, or a squashed point."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.nn.mlp import MLP, gelu

HEAD_SCALE = 0.01
"""Variance scale of the last layer: actors begin near the middle of the box."""


class Mean(eqx.Module):
    """mu(s), by a network whose head begins near zero; kept in (-1, 1) by tanh where `squash`."""

    net: MLP
    squash: bool = eqx.field(static=True)

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        *,
        layer_norm: bool = False,
        squash: bool = False,
        activation: Callable[[Array], Array] = gelu,
        key: PRNGKeyArray,
    ):
        self.net = MLP(
            observation_dim,
            action_dim,
            hidden,
            layer_norm=layer_norm,
            activation=activation,
            final_scale=HEAD_SCALE,
            key=key,
        )
        self.squash = squash

    def __call__(self, observations: Float[Array, "*batch obs"]) -> Float[Array, "*batch act"]:
        means = self.net(observations)
        return jnp.tanh(means) if self.squash else means


def log_prob(
    means: Float[Array, "*batch act"], actions: Float[Array, "*batch act"]
) -> Float[Array, "*batch"]:
    """log N(a; mu, I), with its constant."""
    constant = actions.shape[-1] / 2 * math.log(2 * math.pi)
    return -jnp.square(actions - means).sum(-1) / 2 - constant
