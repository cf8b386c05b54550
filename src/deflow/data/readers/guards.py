"""What every reader guards against: links that leave, errors in many tongues, absent packages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from deflow.core.errors import DeFlowError, first_line
from deflow.core.progress import progress_bar

T = TypeVar("T")

_FEW = 64
"""Up to this many files no bar is shown."""


def watched(items: Sequence[T], what: str) -> Iterator[T]:
    """The items one by one, with a progress bar where they are many."""
    if len(items) <= _FEW:
        yield from items
        return
    with progress_bar(transient=True) as bar:
        task = bar.add_task(what, total=len(items), note="")
        for item in items:
            yield item
            bar.advance(task)


def require_inside(folder: Path, file: Path) -> Path:
    """The file, where no link leads from it out of the folder; else `DeFlowError`."""
    if not file.resolve().is_relative_to(folder.resolve()):
        raise DeFlowError(
            f"{file} is a link that leads out of {folder}, and is not followed; copy the file in "
            "its place."
        )
    return file


@contextlib.contextmanager
def one_error(path: Path, kind: str) -> Iterator[None]:
    """Whatever a library says of a damaged file, as one `DeFlowError`."""
    try:
        yield
    except DeFlowError:
        raise
    except FileNotFoundError as error:
        raise DeFlowError(f"There is no file {error.filename or path}.") from error
    except PermissionError as error:
        raise DeFlowError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # A damaged file fails in as many ways as its libraries have.
        raise DeFlowError(
            f"{path} is truncated, damaged or no {kind} ({first_line(error)[:200]}); fetch or make "
            "it again."
        ) from error


def require_package(package: str, extra: str, path: Path) -> None:
    """Raise `DeFlowError` where an optional package is not installed."""
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise DeFlowError(
            f"{path} takes {package}, which is not installed: pip install '.[{extra}]' in a clone "
            "of DeFlow."
        )
