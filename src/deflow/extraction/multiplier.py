"""A Lagrange multiplier, learnt by how far its constraint is from being met."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MultiplierForm = Literal["log", "linear"]


def multiplier_loss(
    log_alpha: Float[Array, ""],
    squared: Float[Array, ""],
    delta: float | Float[Array, ""],
    form: MultiplierForm,
) -> Float[Array, ""]:
    """Raises alpha while the residual is over budget, lowers it while under (eq. 12).

    `linear` is the paper's -alpha (L - delta); `log` is the official code's
    -log(alpha) (L - delta), whose pace does not depend on alpha itself.
    """
    weight = log_alpha if form == "log" else jnp.exp(log_alpha)
    return -weight * (jax.lax.stop_gradient(squared) - delta)
