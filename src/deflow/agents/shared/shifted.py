"""Augmentation of frames: half of the batches are moved by a few pixels, each row its own way.

Kostrikov et al., "Image Augmentation Is All You Need" (DrQ), arXiv 2004.13649, as in FQL's official
code: one draw for the batch, the same offsets for observations and next observations.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, UInt8

from deflow.core.agent import Noise, Phase, State
from deflow.core.types import Batch, Clock, Metrics

PAD = 3
"""Pixels by which a frame is widened at each edge before it is cut out again."""

CHANCE = 0.5
"""How likely a batch is moved at all."""


class Seen(NamedTuple):
    """The draws of an update from frames."""

    offsets: Int[Array, "batch 2"]
    rest: Noise


def draw_offsets(key: PRNGKeyArray, size: int) -> Int[Array, "batch 2"]:
    """Where each row's frames are cut out, from 0 to 2 PAD; PAD, PAD is where they were."""
    moved_key, offset_key = jax.random.split(key)
    offsets = jax.random.randint(offset_key, (size, 2), 0, 2 * PAD + 1)
    return jnp.where(jax.random.bernoulli(moved_key, CHANCE), offsets, PAD)


def shift(
    frames: UInt8[Array, "batch h w c"], offsets: Int[Array, "batch 2"]
) -> UInt8[Array, "batch h w c"]:
    """The frames, widened by their edges and cut out at the offsets."""
    wide = jnp.pad(frames, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)), mode="edge")

    def cut(frame: Array, offset: Array) -> Array:
        return jax.lax.dynamic_slice(frame, (offset[0], offset[1], 0), frames.shape[1:])

    return jax.vmap(cut)(wide, offsets)


def shifting(phase: Phase) -> Phase:
    """The phase with its batches shifted; the draws of the shift are part of its noise."""

    def draw(agent: Any, key: PRNGKeyArray) -> Seen:
        shift_key, rest_key = jax.random.split(key)
        return Seen(draw_offsets(shift_key, phase.batch_size), phase.draw(agent, rest_key))

    def update(
        agent: Any, state: State, batch: Batch, noise: Seen, clock: Clock
    ) -> tuple[State, Metrics]:
        frames = (batch.observations, batch.next_observations)
        moved = [shift(each, noise.offsets) for each in frames]
        batch = eqx.tree_at(lambda b: (b.observations, b.next_observations), batch, tuple(moved))
        return phase.update(agent, state, batch, noise.rest, clock)

    return replace(phase, draw=draw, update=update)
