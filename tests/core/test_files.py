"""Files that one process at a time may hold."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from deflow.core.files import locked


def refuse() -> None:
    raise BlockingIOError


def test_a_file_that_its_holder_deleted_is_held_by_one_of_those_who_waited(tmp_path: Path):
    path = tmp_path / ".lock"
    with contextlib.ExitStack() as first:
        first.enter_context(locked(path, refuse))

        def give_way() -> None:
            path.unlink()
            first.close()

        with locked(path, give_way), pytest.raises(BlockingIOError), locked(path, refuse):
            pytest.fail("Two hold it.")
    with locked(path, refuse):
        pass
