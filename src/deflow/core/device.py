"""Whether there is something to compute on."""

from __future__ import annotations

import os

from deflow.core.errors import DeFlowError, first_line

NO_DEVICE = (ImportError, RuntimeError, AssertionError)
"""What JAX raises where it has no device: the last where no plugin of that platform is there."""


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
