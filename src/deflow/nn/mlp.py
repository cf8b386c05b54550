"""Multilayer perceptrons and ensembles of them."""

from __future__ import annotations

from collections.abc import Sequence

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

    def __init__(self, in_size: int, out_size: int, *, key: PRNGKeyArray):
        self.weight = kernel_init(key, (in_size, out_size))
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


class MLP(eqx.Module):
    """Hidden layers of GELU (tanh form), each followed by LayerNorm where asked; a linear output.

    The norm stands *after* the activation, as in the FQL family's networks.
    """

    layers: tuple[Linear, ...]
    norms: tuple[LayerNorm, ...]

    def __init__(
        self,
        in_size: int,
        out_size: int,
        hidden: Sequence[int],
        *,
        layer_norm: bool = False,
        key: PRNGKeyArray,
    ):
        sizes = (in_size, *hidden, out_size)
        keys = jax.random.split(key, len(sizes) - 1)
        self.layers = tuple(
            Linear(a, b, key=k) for a, b, k in zip(sizes[:-1], sizes[1:], keys, strict=True)
        )
        self.norms = tuple(LayerNorm(size) for size in hidden) if layer_norm else ()

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        for i, layer in enumerate(self.layers[:-1]):
            x = jax.nn.gelu(layer(x), approximate=True)
            if self.norms:
                x = self.norms[i](x)
        return self.layers[-1](x)


class Ensemble(eqx.Module):
    """Several networks of one shape over the same input; outputs are stacked on a leading axis."""

    members: MLP

    def __init__(
        self,
        count: int,
        in_size: int,
        out_size: int,
        hidden: Sequence[int],
        *,
        layer_norm: bool = False,
        key: PRNGKeyArray,
    ):
        def build(key: PRNGKeyArray) -> MLP:
            return MLP(in_size, out_size, hidden, layer_norm=layer_norm, key=key)

        self.members = eqx.filter_vmap(build)(jax.random.split(key, count))

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "count *batch out"]:
        outputs: Array = eqx.filter_vmap(lambda net: net(x))(self.members)
        return outputs
