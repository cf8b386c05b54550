"""Which action to take, by a deterministic actor that raises Q and is tied to the data's actions.

Tarasov et al., "Revisiting the Minimalist Approach to Offline RL" (ReBRAC), arXiv 2305.09836.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from deflow.core.types import Metrics
from deflow.extraction.climbing import value_loss


def penalty(
    actions: Float[Array, "batch act"], data_actions: Float[Array, "batch act"]
) -> Float[Array, " batch"]:
    """The squared distance to the data, a sum over the action's dimensions."""
    return jnp.square(actions - data_actions).sum(-1)


def regularised_loss(
    actor: Callable[[Array], Array],
    value: Callable[[Array, Array], Array],
    observations: Float[Array, "batch obs"],
    data_actions: Float[Array, "batch act"],
    weight: float | Float[Array, ""],
) -> tuple[Float[Array, ""], Metrics]:
    """-E Q(s, pi(s)) / |Q| + alpha_1 E ||pi(s) - a||^2."""
    actions = actor(observations)
    q_loss = value_loss(value(observations, actions), normalize=True)
    distance = penalty(actions, data_actions)
    bc_loss = weight * distance.mean()
    loss = q_loss + bc_loss
    metrics = {"loss": loss, "q_loss": q_loss, "bc_loss": bc_loss, "distance": distance.mean()}
    return loss, {f"actor/{name}": number for name, number in metrics.items()}
