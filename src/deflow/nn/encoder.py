"""Networks that see: the IMPALA encoder at its small size, and what stands behind it.

Espeholt et al., "IMPALA", arXiv 1802.01561, figure 3, as FQL's official code builds `impala_small`:
one residual block in each stack, no LayerNorm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from deflow.core.frames import FEATURES, Frame
from deflow.nn.mlp import Linear, gelu, kernel_init

STACKS = (16, 32, 32)
"""Channels of each stack; each halves height and width."""


class Conv(eqx.Module):
    """A 3x3 convolution of [batch, height, width, channels] that keeps height and width."""

    weight: Float[Array, "3 3 in out"]
    bias: Float[Array, " out"]

    def __init__(self, in_channels: int, out_channels: int, *, key: PRNGKeyArray):
        self.weight = kernel_init(key, (3, 3, in_channels, out_channels))
        self.bias = jnp.zeros(out_channels)

    def __call__(self, x: Float[Array, "batch h w in"]) -> Float[Array, "batch h w out"]:
        layout = ("NHWC", "HWIO", "NHWC")
        found = jax.lax.conv_general_dilated(
            x, self.weight, (1, 1), "SAME", dimension_numbers=layout
        )
        return found + self.bias


class Stack(eqx.Module):
    """A convolution, 3x3 max pooling with stride 2, and one residual block."""

    first: Conv
    block: tuple[Conv, Conv]

    def __init__(self, in_channels: int, out_channels: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        self.first = Conv(in_channels, out_channels, key=keys[0])
        self.block = (
            Conv(out_channels, out_channels, key=keys[1]),
            Conv(out_channels, out_channels, key=keys[2]),
        )

    def __call__(self, x: Float[Array, "batch h w in"]) -> Float[Array, "batch h2 w2 out"]:
        x = max_pool(self.first(x))
        inner = x
        for conv in self.block:
            inner = conv(jax.nn.relu(inner))
        return x + inner


def max_pool(x: Float[Array, "batch h w c"]) -> Float[Array, "batch h2 w2 c"]:
    """3x3 max pooling with stride 2; the padding is -inf."""
    window, strides = (1, 3, 3, 1), (1, 2, 2, 1)
    found: Array = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, "SAME")
    return found


class Encoder(eqx.Module):
    """From frames in bytes to features."""

    stacks: tuple[Stack, ...]
    last: Linear

    def __init__(self, frame: Frame, *, key: PRNGKeyArray):
        height, width, channels = frame
        *keys, last_key = jax.random.split(key, len(STACKS) + 1)
        self.stacks = tuple(
            Stack(before, after, key=k)
            for before, after, k in zip((channels, *STACKS), STACKS, keys, strict=False)
        )
        for _ in STACKS:
            height, width = (height + 1) // 2, (width + 1) // 2
        self.last = Linear(height * width * STACKS[-1], FEATURES, key=last_key)

    def __call__(self, frames: UInt8[Array, "*batch h w c"]) -> Float[Array, "*batch features"]:
        x = frames.reshape(-1, *frames.shape[-3:]).astype(jnp.float32) / 255
        for stack in self.stacks:
            x = stack(x)
        x = jax.nn.relu(x).reshape(*frames.shape[:-3], -1)
        return gelu(self.last(x))


class Encoded(eqx.Module):
    """A network behind an encoder of its own: its first argument are frames."""

    encoder: Encoder
    net: Any

    def __call__(self, frames: UInt8[Array, "*batch h w c"], *inputs: Array) -> Array:
        found: Array = self.net(self.encoder(frames), *inputs)
        return found


def behind_encoder(
    frame: Frame | None, key: PRNGKeyArray, make: Callable[[PRNGKeyArray], Any]
) -> Any:
    """The network that `make(key)` makes; behind an encoder where observations are frames."""
    if frame is None:
        return make(key)
    encoder_key, net_key = jax.random.split(key)
    return Encoded(Encoder(frame, key=encoder_key), make(net_key))


def opened(model: Any, observations: Array) -> tuple[Any, Array]:
    """The network without its encoder, and the features in the place of frames; any other network
    and its observations as they are.

    Whoever asks a network several times about one observation opens it first, so that a picture is
    encoded once.
    """
    if isinstance(model, Encoded):
        return model.net, model.encoder(observations)
    return model, observations
