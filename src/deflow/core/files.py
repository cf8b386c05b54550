"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name beside `path`, with its ending, to write to; it takes the place of `path` in the end.

    Where the block fails, `path` stays as it was and nothing is left beside it.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write an object as JSON."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n")
