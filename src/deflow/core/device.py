"""What there is to compute on, and how a program is compiled for it."""

from __future__ import annotations

import os

from deflow.core.errors import DeFlowError, first_line

NO_DEVICE = (ImportError, RuntimeError, AssertionError)
"""What JAX raises where it has no device: the last where no plugin of that platform is there."""

ONCE = {"xla_backend_optimization_level": 0}
"""Compiler options of a program that runs once: its time is the compiler's, to which optimisation
is most of it (a fifth of the time without, where DeFlow's networks are built)."""


def require_device() -> None:
    """Raise `DeFlowError` where JAX finds no device, as with JAX_PLATFORMS=cuda and no GPU."""
    try:
        import jax

        jax.devices()
    except NO_DEVICE as error:
        asked = os.environ.get("JAX_PLATFORMS")
        where = f" with JAX_PLATFORMS={asked}" if asked else ""
        why = f" ({first_line(error)})" if str(error) else ""
        raise DeFlowError(
            f"JAX finds no device to compute on{where}{why}: set JAX_PLATFORMS=cpu, "
            "or see what `deflow doctor` says of this machine."
        ) from error
