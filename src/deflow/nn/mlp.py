"""Multilayer perceptrons and ensembles of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

kernel_init = jax.nn.initializers.glorot_uniform()
"""Variance scaling with scale 1, fan_avg, uniform: the initialiser of the whole FQL family."""


class Linear(eqx.Module):
    """An affine map of the last axis, x W + b."""

    weight: Float[Array, "in out"]
    bias: Float[Array, " out"]

    def __init__(self, in_size: int, out_size: int, *, scale: float = 1.0, key: PRNGKeyArray):
        self.weight = kernel_init(key, (in_size, out_size)) * scale**0.5
        self.bias = jnp.zeros(out_size)

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        return x @ self.weight + self.bias


class LayerNorm(eqx.Module):
    """Normalisation of the last axis, with a learnt scale and bias."""

    scale: Float[Array, " size"]
    bias: Float[Array, " size"]
    epsilon: float = eqx.field(static=True, default=1e-6)

    def __init__(self, size: int):
        self.scale, self.bias = jnp.ones(size), jnp.zeros(size)

    def __call__(self, x: Float[Array, "*batch size"]) -> Float[Array, "*batch size"]:
        mean = x.mean(-1, keepdims=True)
        variance = jnp.square(x - mean).mean(-1, keepdims=True)
        return (x - mean) * (jax.lax.rsqrt(variance + self.epsilon) * self.scale) + self.bias


def gelu(x: Array) -> Array:
    """GELU in its tanh form, which is Flax's default and so the FQL family's."""
    return jax.nn.gelu(x, approximate=True)


class MLP(eqx.Module):
    """Hidden layers, each followed by LayerNorm where asked, and a linear output.

    The norm stands *after* the activation, as in the FQL family's networks. `final_scale` is the
    variance scale of the last kernel's initialiser.
    """

    layers: tuple[Linear, ...]
    norms: tuple[LayerNorm, ...]
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self,
        in_size: int,
        out_size: int,
        hidden: Sequence[int],
        *,
        layer_norm: bool = False,
        activation: Callable[[Array], Array] = gelu,
        final_scale: float = 1.0,
        key: PRNGKeyArray,
    ):
        sizes = (in_size, *hidden, out_size)
        keys = jax.random.split(key, len(sizes) - 1)
        scales = [1.0] * len(hidden) + [final_scale]
        self.layers = tuple(
            Linear(*shape, scale=scale, key=k)
            for shape, scale, k in zip(itertools.pairwise(sizes), scales, keys, strict=True)
        )
        self.activation = activation
        self.norms = tuple(LayerNorm(size) for size in hidden) if layer_norm else ()

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        for i, layer in enumerate(self.layers[:-1]):
            x = self.activation(layer(x))
            if self.norms:
                x = self.norms[i](x)
        return self.layers[-1](x)


class ActionNet(eqx.Module):
    """A network from an observation, an action and `times` further numbers to an action's shape."""

    times: ClassVar[int] = 0
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
        size = observation_dim + action_dim + self.times
        self.net = MLP(size, action_dim, hidden, layer_norm=layer_norm, key=key)

    def __call__(self, *inputs: Float[Array, "*batch size"]) -> Float[Array, "*batch act"]:
        return self.net(jnp.concatenate(inputs, axis=-1))


class Ensemble(eqx.Module):
    """Several networks of one shape over the same input; outputs are stacked on a leading axis.

    They stand side by side rather than stacked: XLA's products with a small batch axis are slower
    on CPUs than the same products one by one.
    """

    members: tuple[MLP, ...]

    def __init__(
        self,
        count: int,
        in_size: int,
        out_size: int,
        hidden: Sequence[int],
        *,
        layer_norm: bool = False,
        activation: Callable[[Array], Array] = gelu,
        key: PRNGKeyArray,
    ):
        self.members = tuple(
            MLP(in_size, out_size, hidden, layer_norm=layer_norm, activation=activation, key=k)
            for k in jax.random.split(key, count)
        )

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "count *batch out"]:
        return jnp.stack([net(x) for net in self.members])
