"""The few types that every room speaks: a batch, and what an agent may know of a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from deflow.core.frames import Frame

Metrics = Mapping[str, Float[Array, ""]]
"""Named scalars that an update reports. Names are `room/quantity`; those that end in `loss` are
watched for values that are not finite. Where a room is not measured at every step, `room/measured`
is 1 at the steps that count and 0 at the others."""


class Batch(eqx.Module):
    """Transitions, one a row.

    Observations are vectors or, where a task is seen, stacks of frames [batch, height, width,
    channels] in bytes.

    `masks` is 0 where the episode truly ended, so that nothing is bootstrapped. `fields` holds the
    further row fields that a phase declares, for the row (`name`) and for the row of the next
    observation (`next_name`).
    """

    observations: Float[Array, "batch obs"]
    actions: Float[Array, "batch act"]
    rewards: Float[Array, " batch"]
    masks: Float[Array, " batch"]
    next_observations: Float[Array, "batch obs"]
    fields: dict[str, Array] = eqx.field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    """What an agent may know of a task. Actions lie in the box [-1, 1].

    Where observations are stacks of frames, `frame` is a stack's shape, and `observation_dim` how
    many features an encoder makes of it.
    """

    observation_dim: int
    action_dim: int
    reward_range: tuple[float, float]
    total_steps: int
    frame: Frame | None = None

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """The shape of one observation."""
        return self.frame or (self.observation_dim,)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Spec:
        """Read back what `dataclasses.asdict` wrote."""
        low, high = document["reward_range"]
        frame = document.get("frame")
        tuples = {"reward_range": (low, high), "frame": tuple(frame) if frame else None}
        return cls(**{**document, **tuples})


class Clock(eqx.Module):
    """The one clock of a family: it is never batched, so that a schedule is a real branch.

    `step` counts the gradient steps of the current phase, from 0; `phase` is its index.
    """

    step: Array
    phase: int = eqx.field(static=True, default=0)
