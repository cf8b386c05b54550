"""Which action to take, by sending Q's gradient back through the sampler (FBRAC, CAC)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float

from deflow.core.types import Metrics
from deflow.extraction.climbing import value_loss


def through_sampler_loss(
    model: Any,
    sample: Callable[[Any], Array],
    clone: Callable[[Any], Array],
    value: Callable[[Array], Array],
    *,
    clone_weight: float | Float[Array, ""],
    value_weight: float | Float[Array, ""] = 1.0,
    normalize: bool = False,
) -> tuple[Float[Array, ""], Metrics]:
    """w E L_clone(model) - w' E Q(s, sample(model)), through every step of the sampler."""
    q = value(sample(model))
    cloned = clone(model)
    q_loss = value_loss(q, normalize=normalize)
    loss = clone_weight * cloned + value_weight * q_loss
    metrics = {"loss": loss, "q_loss": q_loss, "q": q.mean(), "clone_loss": cloned}
    return loss, {f"actor/{name}": number for name, number in metrics.items()}
