"""Where datasets live on this machine."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from deflow.core.errors import DeFlowError
from deflow.core.files import locked

VARIABLE = "DEFLOW_DATA_DIR"
"""The environment variable that names the data folder where no option does."""

OGBENCH_FOLDER = Path("~/.ogbench/data")
"""Where OGBench itself keeps its files; looked into, never written."""


def data_folder(option: Path | None = None) -> Path:
    """The data folder: the option, else the variable `DEFLOW_DATA_DIR`, else the user's cache."""
    if option is not None:
        return Path(option).expanduser()
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    return platformdirs.user_cache_path("deflow") / "data"


def find_set(dataset: str, folder: Path) -> Path | None:
    """The training file of a set that is whole (its validation file beside it) in `folder`, or
    where OGBench keeps its own; `None` where neither has it."""
    for place in (folder, OGBENCH_FOLDER.expanduser()):
        if all((place / f"{dataset}{split}.npz").is_file() for split in ("", "-val")):
            return place / f"{dataset}.npz"
    return None


def ensure_writable(folder: Path) -> None:
    """Make the folder where it is missing, and check that a file can be written into it.

    Raises:
        DeFlowError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DeFlowError(
            f"The data folder {folder} cannot be written ({error.strerror}); choose another with "
            f"--data-dir or the variable {VARIABLE}."
        ) from error


@contextlib.contextmanager
def sole_maker(folder: Path, dataset: str) -> Iterator[None]:
    """Keep a second process from making the same set in the same folder; a kill frees it.

    Raises:
        DeFlowError: another process is making it.
    """

    def busy() -> None:
        raise DeFlowError(
            f"Another process is making {dataset} in {folder} just now; wait for it, or choose "
            "another --data-dir."
        )

    path = folder / f".{dataset}.lock"
    with locked(path, busy):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
