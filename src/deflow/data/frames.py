"""Frames in memory: bytes, once, and stacked by their rows' indices rather than by copies."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from deflow.core.errors import DeFlowError, first_line
from deflow.core.frames import STACK
from deflow.core.memory import available_memory
from deflow.core.progress import console, progress_bar
from deflow.data import checks
from deflow.data.npz import header

Frames = NDArray[np.uint8]
Indices = NDArray[np.int32]

ALIGNMENT = 64
"""Bytes; JAX takes a CPU's array as it is, without a copy, where it begins at a multiple."""

BESIDE = 64
"""Bytes, about, that a row holds beside its frame: action, reward, indices."""

_CHUNK = 1 << 24


@dataclass(frozen=True)
class Memory:
    """What frames need: bytes a frame with all that a row holds beside it, and in all."""

    per_frame: int
    total: int
    available: int

    def __str__(self) -> str:
        return (
            f"{self.total / 1e6:,.1f} MB ({self.per_frame:,} bytes a frame) of the "
            f"{self.available / 1e6:,.1f} MB that are free"
        )


def memory_of(shape: tuple[int, ...]) -> Memory:
    """What frames of this shape [N, height, width, channels] take, and what is free."""
    per_frame = int(np.prod(shape[1:], dtype=np.int64)) + BESIDE
    return Memory(per_frame, shape[0] * per_frame, available_memory())


def require_room(name: str, shape: tuple[int, ...]) -> Memory:
    """What `memory_of` says, before the memory is taken.

    Raises:
        DeFlowError: it would not fit.
    """
    memory = memory_of(shape)
    if memory.total > memory.available:
        raise DeFlowError(
            f"{name} needs {memory}: use a machine with more memory, or a set of at most "
            f"{memory.available // memory.per_frame:,} frames."
        )
    return memory


def empty(shape: tuple[int, ...]) -> Frames:
    """Room for frames, where JAX need not copy them."""
    size = int(np.prod(shape, dtype=np.int64))
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size].reshape(shape)


def frames(value: Any, what: str) -> Frames:
    """Frames [N, height, width, channels] as bytes; an array of bytes is taken as it is.

    Raises:
        DeFlowError: another type, another number of dimensions, or none at all.
    """
    array = checks.numbers(value, what)
    if array.ndim != 4 or array.dtype != np.uint8:
        raise _no_frames(what, array.shape, array.dtype)
    if array.size == 0:
        raise DeFlowError(
            f"{what} are empty (shape {array.shape}); there is nothing to learn from."
        )
    return array


def _no_frames(what: str, shape: tuple[int, ...], dtype: Any) -> DeFlowError:
    return DeFlowError(
        f"{what} have shape {shape} and dtype {dtype}, and frames must be bytes (uint8) of the "
        "shape [rows, height, width, channels]."
    )


def read_frames(path: Path) -> Frames:
    """An .npz file's `observations`, into memory that is taken once, and stated before.

    Raises:
        DeFlowError: no such array, not frames, too large for this machine, or cut short.
    """
    what = f"{path}: observations"
    try:
        with zipfile.ZipFile(path) as archive, archive.open("observations.npy") as file:
            shape, fortran, dtype = header(file)
            if dtype != np.uint8 or len(shape) != 4 or fortran or 0 in shape:
                raise _no_frames(what, shape, dtype)
            console.print(f"{path.name}: {require_room(str(path), shape)}.")
            found = empty(shape)
            _fill(found.reshape(-1), file)
            return found
    except DeFlowError:
        raise
    except Exception as error:  # A damaged archive fails in as many ways as zip and zlib have.
        raise DeFlowError(
            f"{what} cannot be read ({first_line(error)}); fetch or generate the set again."
        ) from error


def _fill(flat: Frames, file: IO[bytes]) -> None:
    done = 0
    with progress_bar() as bar:
        task = bar.add_task("frames", total=len(flat), note="")
        while chunk := file.read(_CHUNK):
            flat[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
            done += len(chunk)
            bar.update(task, completed=done)
    if done != len(flat):
        raise ValueError(f"{done:,} of {len(flat):,} bytes are there")


def previous_rows(count: int, rows: Indices, next_rows: Indices) -> Indices:
    """For each of `count` rows the row of the frame before; its own where an episode begins.

    `rows` and `next_rows` are a dataset's transitions.
    """
    previous = np.arange(count, dtype=np.int32)
    moves = rows != next_rows  # A true end without a next observation stands for itself.
    previous[next_rows[moves]] = rows[moves]
    return previous


def stack_rows(previous: Any, rows: Any) -> list[Any]:
    """The rows of the frames that make the observations of `rows`, oldest first: indices alone, of
    NumPy or of JAX. The first frame is repeated where an episode begins."""
    found = [rows]
    for _ in range(STACK - 1):
        found.append(previous[found[-1]])
    return found[::-1]
