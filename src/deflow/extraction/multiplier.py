"""A Lagrange multiplier, learnt by how far its constraint is from being met."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MultiplierForm = Literal["log", "linear"]


def multiplier_loss(
    log_multiplier: Float[Array, ""],
    measured: Float[Array, ""],
    bound: float | Float[Array, ""],
    form: MultiplierForm,
) -> Float[Array, ""]:
    """Raises the multiplier alpha while measured <= bound is violated, lowers it while it holds.

    `linear` is -alpha (measured - bound), as in DeFlow (arXiv 2601.10471, eq. 12); `log` puts
    log alpha in alpha's place, as the codes of DeFlow and of Cal-QL do, so that the pace does not
    depend on alpha itself.
    """
    weight = log_multiplier if form == "log" else jnp.exp(log_multiplier)
    return -weight * (jax.lax.stop_gradient(measured) - bound)
