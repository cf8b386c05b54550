"""Orthogonal kernels, with which Cal-QL's networks begin."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.nn.learner import Model
from deflow.nn.mlp import MLP, Linear

HIDDEN_GAIN, HEAD_GAIN = 2**0.5, 0.01


def orthogonal(model: Model, key: PRNGKeyArray) -> Model:
    """The model with orthogonal kernels in every MLP: HEAD_GAIN at its end, HIDDEN_GAIN before."""

    def layers(model: Any) -> list[tuple[Linear, float]]:
        nodes = jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, MLP))
        nets = [node for node in nodes if isinstance(node, MLP)]
        return [
            (layer, HEAD_GAIN if layer is net.layers[-1] else HIDDEN_GAIN)
            for net in nets
            for layer in net.layers
        ]

    found = layers(model)
    kernels = [
        orthogonal_kernel(own_key, layer.weight.shape, gain)
        for own_key, (layer, gain) in zip(jax.random.split(key, len(found)), found, strict=True)
    ]
    drawn: Model = eqx.tree_at(lambda m: [layer.weight for layer, _ in layers(m)], model, kernels)
    return drawn


def orthogonal_kernel(
    key: PRNGKeyArray, shape: tuple[int, ...], gain: float
) -> Float[Array, "in out"]:
    """A kernel with orthonormal rows or columns, whichever are fewer, times the gain."""
    draw = jax.nn.initializers.orthogonal(gain)
    # One decomposition at a time. jaxlib (0.10.2) spreads a batch of them, as a family's would be,
    # over the threads of which one waits for the rest: on two cores it waits for ever.
    one_by_one = jax.custom_batching.sequential_vmap
    kernel: Array = one_by_one(lambda key: draw(key, shape))(key)  # type: ignore[no-untyped-call]
    return kernel
