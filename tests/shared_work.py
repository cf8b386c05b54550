"""What is long to make is made by one of pytest-xdist's workers for all of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deflow.core.files import locked


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that every worker reads and none changes; who comes first has `make` fill it.

    Where that fails, nothing is left to those who come after.
    """
    base = factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-once"
    home.mkdir(exist_ok=True)
    with locked(home / f".{name}", busy=lambda: None):
        if not (home / name).exists():
            draft = factory.mktemp("draft") / name
            make(draft)
            draft.rename(home / name)
    return home / name


def copy_of(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """This worker's own copy of such a folder."""
    made = made_once(factory, name, make)
    return Path(shutil.copytree(made, factory.mktemp("copy") / name))
