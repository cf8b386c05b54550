"""What is long to make is made by one of pytest-xdist's workers for all of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def folder_of_all(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder of this test run that every worker sees; whoever writes there holds a lock."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    return folder
