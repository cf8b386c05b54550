"""How tests compile."""

from __future__ import annotations

from functools import partial

import jax

from deflow.core.device import ONCE

once = partial(jax.jit, compiler_options=ONCE)
"""For what a test computes a few times; what trains is left to the optimising compiler. A function
compiled by it cannot be called inside another that is."""
