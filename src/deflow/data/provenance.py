"""The small JSON file beside a set that says how it came about and what its files should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deflow.core.errors import DeFlowError
from deflow.core.files import sha256


def validation_file(target: Path) -> Path:
    """`cube-single-play-v0-val.npz` beside `cube-single-play-v0.npz`."""
    return target.with_name(f"{target.stem}-val.npz")


def provenance_file(target: Path) -> Path:
    """`cube-single-play-v0.json` beside `cube-single-play-v0.npz`."""
    return target.with_suffix(".json")


def file_entry(path: Path) -> dict[str, Any]:
    """What is kept of a finished file: its size and checksum."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def check_files(target: Path, *, full: bool = False) -> bool:
    """Compare a set's files with what was kept of them, sizes only unless `full`.

    Returns:
        Whether anything was kept to compare with.

    Raises:
        DeFlowError: a file is not what it was when it was made or downloaded.
    """
    kept = read_json(provenance_file(target)).get("files")
    if not isinstance(kept, dict):  # A file of that name may be anybody's.
        return False
    for path in (target, validation_file(target)):
        entry = kept.get(path.name)
        if not isinstance(entry, dict) or not entry.keys() >= {"bytes", "sha256"}:
            continue
        if not path.exists():
            continue
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise DeFlowError(
                f"{path} has {size} bytes, and had {entry['bytes']} when it was made; delete it "
                "and fetch or generate the set again."
            )
        if full and sha256(path) != entry["sha256"]:
            raise DeFlowError(
                f"{path} is not what it was when it was made (another checksum); delete it and "
                "fetch or generate the set again."
            )
    return bool(kept)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none that can be read."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
