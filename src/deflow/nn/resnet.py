"""A residual network with LayerNorm and dropout, and features of time: IDQL's architecture.

Hansen-Estruch et al., "IDQL", arXiv 2304.10573, section 4 and the official code. All kernels are
Xavier's uniform ones; the code's blocks take Flax's default, LeCun's normal, instead.

A dropout mask is data like every other random number: `draw_dropout` makes it, already scaled, and
the network multiplies by it. So the network knows no rate, a recorded mask repeats an update
exactly, and None stands for evaluation, where nothing is dropped.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.nn.mlp import LayerNorm, Linear

EXPANSION = 4
"""How much wider a block is inside."""


class Fourier(eqx.Module):
    """cos(2 pi W t) and sin(2 pi W t) of times [*batch, 1]; W, learnt, begins as N(0, 0.2^2)."""

    frequencies: Float[Array, " half"]

    def __init__(self, size: int, *, key: PRNGKeyArray):
        self.frequencies = 0.2 * jax.random.normal(key, (size // 2,))

    def __call__(self, t: Float[Array, "*batch 1"]) -> Float[Array, "*batch size"]:
        angles = 2 * jnp.pi * t * self.frequencies
        return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class Block(eqx.Module):
    """x + W' mish(W LayerNorm(dropout(x))): dropout stands before the norm."""

    norm: LayerNorm
    widen: Linear
    narrow: Linear

    def __init__(self, width: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key)
        self.norm = LayerNorm(width)
        self.widen = Linear(width, EXPANSION * width, key=keys[0])
        self.narrow = Linear(EXPANSION * width, width, key=keys[1])

    def __call__(
        self, x: Float[Array, "*batch width"], dropout: Float[Array, "*batch width"] | None
    ) -> Float[Array, "*batch width"]:
        kept = x if dropout is None else x * dropout
        return x + self.narrow(jax.nn.mish(self.widen(self.norm(kept))))


class ResNet(eqx.Module):
    """Linear, some blocks, Mish, linear."""

    first: Linear
    blocks: tuple[Block, ...]
    last: Linear

    def __init__(
        self, in_size: int, out_size: int, *, width: int = 256, blocks: int = 3, key: PRNGKeyArray
    ):
        first_key, last_key, *keys = jax.random.split(key, blocks + 2)
        self.first = Linear(in_size, width, key=first_key)
        self.blocks = tuple(Block(width, key=k) for k in keys)
        self.last = Linear(width, out_size, key=last_key)

    def __call__(
        self,
        x: Float[Array, "*batch in"],
        dropout: Float[Array, "blocks *batch width"] | None = None,
    ) -> Float[Array, "*batch out"]:
        x = self.first(x)
        for i, block in enumerate(self.blocks):
            x = block(x, None if dropout is None else dropout[i])
        return self.last(jax.nn.mish(x))


def draw_dropout(
    key: PRNGKeyArray, rate: float | Float[Array, ""], shape: tuple[int, ...]
) -> Float[Array, "blocks *batch width"]:
    """What the input of each block [blocks, *batch, width] is multiplied by: 0 or 1 / (1 - rate),
    so that the mean stays."""
    return jax.random.bernoulli(key, 1 - rate, shape) / (1 - rate)
