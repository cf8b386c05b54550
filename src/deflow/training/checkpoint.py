"""Checkpoints: flat arrays by name, written whole or not at all, and checked when read.

A checkpoint is a folder `step-<n>` that holds `arrays/` and perhaps others like it (Orbax; no
pickle), `meta.json` (where the run stands) and `manifest.json` (the SHA-256 of every file). It is
written beside its place and moved there in one rename, so a kill leaves the one before it
untouched.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from deflow.core.errors import DeFlowError, first_line
from deflow.core.files import sha256, sync
from deflow.core.progress import console
from deflow.core.trees import named_leaves

MANIFEST = "manifest.json"


def save(
    folder: Path, number: int, parts: Mapping[str, PyTree], meta: dict[str, Any], keep: int
) -> Path:
    """Write checkpoint `number`, of arrays in named parts, and drop all but the newest `keep`.

    Raises `OSError` where the disk does not take it; the checkpoints before it are untouched.
    """
    final = folder / f"step-{number:09d}"
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for part, arrays in parts.items():
        named = {name: np.asarray(leaf) for name, leaf in named_leaves(arrays).items()}
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save((partial / part).absolute(), named)
        except ValueError as error:  # Which is how Orbax hears of a disk that is full.
            raise OSError(None, first_line(error), str(partial)) from error
    (partial / "meta.json").write_text(json.dumps(meta, indent=2))
    (partial / MANIFEST).write_text(json.dumps(_digests(partial), indent=2))
    for path in partial.rglob("*"):
        if path.is_file():
            sync(path)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    for old in existing(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def existing(folder: Path) -> list[Path]:
    """Checkpoints in a folder, oldest first."""
    return sorted(folder.glob("step-*"))


def number_of(checkpoint: Path) -> int:
    """The number that it was saved by."""
    return int(checkpoint.name.removeprefix("step-"))


def read_meta(checkpoint: Path) -> dict[str, Any]:
    """Where the run stood."""
    meta: dict[str, Any] = json.loads((checkpoint / "meta.json").read_text())
    return meta


def load(checkpoint: Path, like: PyTree, part: str = "arrays") -> PyTree:
    """Read a part of a checkpoint into the shape of `like` (arrays or `ShapeDtypeStruct`s).

    Raises `ValueError` where it holds other arrays or other sizes. They are compared by name with
    what was written, since Orbax would cut or pad an array to the size that it is asked for.
    """
    wanted = named_leaves(like)
    place = (checkpoint / part).absolute()
    target = {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in wanted.items()}
    with ocp.StandardCheckpointer() as checkpointer:
        written = checkpointer.metadata(place).item_metadata
        sizes = {name: tuple(written[name].shape) for name in written}
        if sizes != {name: array.shape for name, array in target.items()}:
            raise ValueError(f"{checkpoint} holds other arrays than these networks have")
        arrays = checkpointer.restore(place, target)
    return jax.tree.unflatten(
        jax.tree.structure(like), [jax.numpy.asarray(arrays[name]) for name in wanted]
    )


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None where each has the recorded digest."""
    try:
        recorded = json.loads((checkpoint / MANIFEST).read_text())
    except (OSError, ValueError):
        return f"{MANIFEST} cannot be read"
    found = _digests(checkpoint)
    if not isinstance(recorded, dict) or not recorded:
        return f"{MANIFEST} names no files"
    wrong = sorted(n for n in {*recorded, *found} if found.get(n) != recorded.get(n))
    return f"{wrong[0]} is missing, new or changed" if wrong else None


def fingerprint(checkpoint: Path) -> str:
    """SHA-256 of the digests of all its files."""
    return sha256(checkpoint / MANIFEST)


def newest_sound(folder: Path) -> Path:
    """The newest checkpoint whose files are whole; damaged ones are named and passed over."""
    for checkpoint in reversed(existing(folder)):
        problem = damage(checkpoint)
        if problem is None:
            return checkpoint
        console.print(
            f"Checkpoint {checkpoint.name} is damaged ({problem}); using the one before it.",
            style="yellow",
        )
    if not existing(folder):
        run = folder.parent
        raise DeFlowError(
            f"The run {run} has no checkpoint yet: wait for its first one, or, where it was "
            f"stopped, `deflow resume {run}`."
        )
    raise DeFlowError(f"There is no usable checkpoint in {folder}: train the run again.")


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
