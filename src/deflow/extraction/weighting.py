"""Which action to take, by weighting the data: better actions are cloned harder.

Peng et al., "Advantage-Weighted Regression", arXiv 1910.00177; Nair et al., "AWAC",
arXiv 2006.09359; used by IQL (arXiv 2110.06169, eq. 7) and, over a flow, by FAWAC.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

CEILING = 100.0
"""No action weighs more, as in IQL's code."""


def advantage_weights(
    advantages: Float[Array, " batch"], temperature: float | Float[Array, ""]
) -> Float[Array, " batch"]:
    """min(exp(alpha (Q - V)), 100), a constant to whatever is weighted."""
    weights = jnp.minimum(jnp.exp(temperature * advantages), CEILING)
    return jax.lax.stop_gradient(weights)
