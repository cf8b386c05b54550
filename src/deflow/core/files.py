"""Files and folders that are written whole or not at all, by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name beside `path`, with its ending, to write to; it takes the place of `path` in the end.

    Where the block fails, `path` stays as it was and nothing is left beside it. Of several threads
    or processes that write the same file at once, each writes it whole, and the last stays.
    """
    draft = _draft(path)
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_made_whole(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` to fill; it becomes `path` in the end.

    Where the block fails, nothing is left of it. Raises `OSError` where `path` holds something by
    then: of several threads or processes that make the same folder, the first one's stays.
    """
    draft = _draft(path)
    try:
        shutil.rmtree(draft, ignore_errors=True)  # Of a process that was killed and had this name.
        draft.mkdir(parents=True)
        yield draft
        os.replace(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _draft(path: Path) -> Path:
    """A hidden name beside `path`, with its ending, that no other thread writes to."""
    writer = f"{os.getpid()}-{threading.get_ident()}"
    return path.with_name(f".{path.stem}.{writer}.partial{path.suffix}")


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write an object as JSON."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n")


def sync(path: Path) -> None:
    """Ask the disk to keep a file, before it is given its final name."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sha256(path: Path) -> str:
    """The file's SHA-256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(path: Path, busy: Callable[[], None]) -> Iterator[None]:
    """Hold a file, made where it is missing, against other processes; a kill frees it.

    `busy` is called where another process holds it; it raises, or the other's end is awaited.
    """
    while True:
        with path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                busy()
                fcntl.flock(file, fcntl.LOCK_EX)
            # What was opened may have been moved or deleted since, by the process that held it.
            if _is_at(path, file):
                yield
                return


def _is_at(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
