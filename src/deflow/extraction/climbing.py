"""Which action to take, by climbing Q: the term that every policy that does so has in its loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def value_loss(q: Float[Array, " batch"], *, normalize: bool) -> Float[Array, ""]:
    """-E Q, divided by the batch's mean |Q| where `normalize`: its weight against other terms
    then does not depend on the unit of rewards."""
    scale = jax.lax.stop_gradient(jnp.abs(q).mean()) if normalize else 1.0
    return -jnp.mean(q) / scale
