"""Agents whose actor steps more rarely than their critics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from deflow.agents.shared.trained import Trained
from deflow.core.settings import setting
from deflow.core.types import Clock

Found = TypeVar("Found")


class Delayed(Trained):
    """An agent whose actor steps at every `actor_every`-th update of its critics."""

    actor_every: int = setting(1, at_least=1)
    """The actor steps at every such update."""

    def moves(self, clock: Clock) -> Bool[Array, ""]:
        """Whether the actor steps now."""
        return (clock.step + 1) % self.actor_every == 0


def zeros_of(function: Callable[..., Found], *inputs: object) -> Found:
    """Zeros in the place of all that the function would return; it is not computed."""
    still: Found = jax.tree.map(jnp.zeros_like, jax.eval_shape(function, *inputs))
    return still
