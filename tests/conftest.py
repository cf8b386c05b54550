"""What every test shares: JAX on the CPU, one way to draw examples, the reference folder."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before any test imports JAX; a run on another device sets the variable itself.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the suite's time is LLVM's, on programs that run for a moment: a quarter less, measured.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")

ROOT = Path(__file__).resolve().parents[1]

# The first example of a property that jits pays for the compilation, so no deadline is fair.
settings.register_profile(
    "local", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("ci", settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_configure(config: pytest.Config) -> None:
    """Compiled programs are kept in a folder that this run's processes share: they are most of its
    time, and runs of one shape compile the same ones again."""
    if hasattr(config, "workerinput"):
        return  # A worker of pytest-xdist has the folder from the process that began it.
    folder = tempfile.TemporaryDirectory(prefix="deflow-compiled-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": folder.name,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """A file's compiled programs are dropped with it: each is several maps of memory, of which a
    process may have no more than some 65,000."""
    yield
    if jax := sys.modules.get("jax"):
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference material beside the clone; tests that need it skip without it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no reference material: there is no folder `shared` beside the clone")
    return folder


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy's data as a user's own file."""
    from tests import toy  # It imports JAX, which is told of its device above.

    return toy.save(tmp_path_factory.mktemp("data") / "toy.npz")
