"""Which action to take, by refinement: a residual on a proposed action, inside a trust region.

DeFlow eq. 10-12: maximise E Q(s, a + Delta) subject to E ||Delta||^2 <= delta, where the residual
Delta = f(s, a) sees the very action it refines, and a Lagrange multiplier alpha = exp(eta) holds
the constraint. Nothing is differentiated through the sampler that proposed the action.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from deflow.core.types import Metrics
from deflow.extraction.climbing import value_loss
from deflow.nn.encoder import opened
from deflow.nn.mlp import ActionNet

Reduction = Literal["mean", "sum"]
Penalty = Literal["raw", "applied"]
Sees = Literal["state-action", "state"]


class Refinement(ActionNet):
    """The residual f(s, a). Its last layer has the ordinary scale: it does not begin near zero."""


def residual(
    refinement: Refinement,
    observations: Float[Array, "*batch obs"],
    proposals: Float[Array, "*batch act"],
    sees: Sees,
) -> Float[Array, "*batch act"]:
    """Delta for each proposal. One that sees the `state` alone reads zeros in the proposal's place:
    an ablation, which cannot shift two modes in opposite directions."""
    seen = proposals if sees == "state-action" else jnp.zeros_like(proposals)
    refinement, observations = opened(refinement, observations)
    observations = jnp.broadcast_to(observations, (*seen.shape[:-1], observations.shape[-1]))
    return refinement(observations, seen)


def refine(
    proposals: Float[Array, "*batch act"], residuals: Float[Array, "*batch act"]
) -> Float[Array, "*batch act"]:
    """The refined action: proposal plus residual, kept in the box."""
    return jnp.clip(proposals + residuals, -1, 1)


def squared_residual(
    residuals: Float[Array, "batch act"], reduction: Reduction
) -> Float[Array, ""]:
    """E ||Delta||^2: a mean over the action's dimensions (code) or a sum over them (paper)."""
    squares = jnp.square(residuals)
    return jnp.mean(squares) if reduction == "mean" else jnp.mean(squares.sum(-1))


def refinement_loss(
    refinement: Refinement,
    value: Callable[[Array, Array], Array],
    observations: Float[Array, "batch obs"],
    proposals: Float[Array, "batch act"],
    alpha: Float[Array, ""],
    *,
    normalize: bool,
    reduction: Reduction,
    penalty: Penalty,
    sees: Sees = "state-action",
) -> tuple[Float[Array, ""], Metrics]:
    """Eq. 11: -E Q(s, a + Delta) / |Q| + alpha E ||Delta||^2, for proposals a that are given.

    `value(s, a)` gives Q [batch]. The `raw` penalty sees the network's output, so that where the
    box cuts an action off, Q pulls no more but the penalty does; `applied` sees what is left.
    """
    residuals = residual(refinement, observations, proposals, sees)
    actions = refine(proposals, residuals)
    q = value(observations, actions)
    q_loss = value_loss(q, normalize=normalize)
    squared = squared_residual(residuals if penalty == "raw" else actions - proposals, reduction)
    loss = q_loss + alpha * squared
    metrics = {
        "loss": loss,
        "q_loss": q_loss,
        "q": q.mean(),
        "squared_residual": squared,
        "alpha": alpha,
    }
    return loss, {f"actor/{name}": number for name, number in metrics.items()}
