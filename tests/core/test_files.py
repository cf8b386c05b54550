"""Files that are written whole, and files that one process at a time may hold."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from deflow.core.files import folder_made_whole, locked, written_whole


def test_threads_that_write_one_file_at_once_each_write_it_whole(tmp_path: Path):
    path, together = tmp_path / "it.txt", Barrier(2, timeout=10)

    def write(word: str) -> None:
        with written_whole(path) as temporary:
            temporary.write_text(word * 1000)
            together.wait()

    with ThreadPoolExecutor(2) as several:
        for done in [several.submit(write, word) for word in "ab"]:
            done.result()
    assert path.read_text() in {"a" * 1000, "b" * 1000}
    assert list(tmp_path.iterdir()) == [path]


def test_of_threads_that_make_one_folder_at_once_one_makes_it_and_the_other_fails(tmp_path: Path):
    path, together = tmp_path / "it", Barrier(2, timeout=10)

    def make(word: str) -> None:
        with folder_made_whole(path) as draft:
            (draft / "a").write_text(word)
            together.wait()
            (draft / "b").write_text(word)
            together.wait()

    with ThreadPoolExecutor(2) as several:
        failed = [done.exception() for done in [several.submit(make, word) for word in "xy"]]
    assert sorted(map(type, failed), key=str) == [type(None), OSError]
    assert (path / "a").read_text() == (path / "b").read_text()
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_whose_making_fails_leaves_nothing(tmp_path: Path):
    def fail() -> None:
        with folder_made_whole(tmp_path / "it") as draft:
            (draft / "a").write_text("1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(tmp_path.iterdir())


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
