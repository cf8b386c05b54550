"""A machine without the device that was asked for says so in one sentence."""

from __future__ import annotations

import jax
import pytest

from deflow.core.device import require_device
from deflow.core.errors import DeFlowError


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable to initialize 'cuda'")])
def test_no_device_is_said(error: Exception, monkeypatch: pytest.MonkeyPatch):
    def fail() -> list[jax.Device]:
        raise error

    require_device()
    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(DeFlowError, match="no device to compute on with JAX_PLATFORMS=cuda"):
        require_device()
