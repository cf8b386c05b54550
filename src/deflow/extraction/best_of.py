"""Which action to take, by choice: the best of several that the behaviour proposes (IDQL, IFQL)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def best_of(
    candidates: Float[Array, "batch n act"], q: Float[Array, "batch n"]
) -> Float[Array, "batch act"]:
    """The candidate with the highest value; the first of equals."""
    index = jnp.argmax(q, axis=-1)
    return jnp.take_along_axis(candidates, index[:, None, None], axis=-2)[:, 0]
