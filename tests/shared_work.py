"""What is long to make is made by one of pytest-xdist's workers for all of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deflow.core.files import locked


def folder_of_all(factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder of this test run that every worker sees; whoever writes there holds a lock."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    return folder


def copy_of(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """This worker's copy of a folder; who comes first has `make` write it to the path it is given.

    Where that fails, nothing is left to those who come after.
    """
    home = folder_of_all(factory, "made-once")
    with locked(home / f".{name}", busy=lambda: None):
        if not (home / name).exists():
            draft = factory.mktemp("draft") / name
            make(draft)
            draft.rename(home / name)
    return Path(shutil.copytree(home / name, factory.mktemp("copy") / name))
