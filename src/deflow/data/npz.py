"""Reading foreign .npz files safely, and writing our own atomically and reproducibly."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.lib import format as npy

from deflow.core.errors import DeFlowError, first_line
from deflow.core.files import sync, written_whole
from deflow.data.guards import require_memory

Array = np.ndarray[Any, Any]

_SHOWN = 20


def read_npz(
    path: Path,
    *,
    required: Sequence[str] = (),
    skip: Sequence[str] = (),
    kind: str = "such file",
) -> dict[str, Array]:
    """Every array of an .npz file but those in `skip`, pickles refused.

    `kind` says, for the message, what a file is that holds those `required`.

    Raises:
        DeFlowError: the file is absent, empty, truncated, no .npz, holds objects, lacks an array
            named in `required`, or would take more memory than there is.
    """
    try:
        if path.stat().st_size == 0:
            raise DeFlowError(f"{path} is empty; put a whole file in its place.")
        judge_sizes(path, skip)
        loaded: Any = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise DeFlowError(
                f"{path} holds a single array (.npy), but an .npz archive of named arrays is "
                "needed; save it with numpy.savez_compressed."
            )
        with loaded as archive:
            missing = [key for key in required if key not in archive.files]
            if missing:
                holds = ", ".join(archive.files[:_SHOWN]) or "nothing"
                raise DeFlowError(
                    f"{path} is no {kind}: it lacks {', '.join(missing)} (it holds {holds}); name "
                    "another, or make it again."
                )
            wanted = [key for key in archive.files if key not in skip]
            return {key: _read_member(path, archive, key) for key in wanted}
    except DeFlowError:
        raise
    except FileNotFoundError as error:
        raise DeFlowError(f"There is no file {path}.") from error
    except PermissionError as error:
        raise DeFlowError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # A damaged archive fails in as many ways as zip and zlib have.
        raise DeFlowError(
            f"{path} is truncated or is no .npz file ({first_line(error)[:200]}); put a sound "
            "copy in its place."
        ) from error


def judge_sizes(path: Path, skip: Sequence[str] = ()) -> None:
    """Raise `DeFlowError` where the archive would not fit into memory, or hides its size.

    NumPy reads no more of an array than the archive declares. A file that is no archive at all is
    left to NumPy, which says what it is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception:  # It will be read, and refused in its own words.
        return
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DeFlowError(
                f"{path}: {member.filename!r} is compressed in a way that NumPy does not write; "
                "save the arrays again with numpy.savez_compressed."
            )
    read = [member for member in members if member.filename.removesuffix(".npy") not in skip]
    require_memory(path, sum(member.file_size for member in read))


def header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and dtype of an array of an archive, opened at its
    beginning; the numbers follow."""
    version = npy.read_magic(file)
    reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    found: tuple[tuple[int, ...], bool, np.dtype[Any]] = reader(file)
    return found


def _read_member(path: Path, archive: Any, key: str) -> Array:
    try:
        array: Array = archive[key]
    except ValueError as error:
        if "pickle" not in str(error).lower() and "object" not in str(error).lower():
            raise
        raise DeFlowError(
            f"The array {key!r} in {path} holds Python objects, which would be read by pickle and "
            "are refused; save it as numbers."
        ) from error
    return array


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays uncompressed, all or nothing."""
    with written_whole(path) as temporary, temporary.open("wb") as file:
        cast(Any, np.savez)(file, **arrays)


def join_npz(path: Path, parts: Sequence[Path]) -> Iterator[tuple[int, int]]:
    """Concatenate the arrays of several .npz files by rows into one compressed .npz at `path`.

    Streams: one part's array is in memory at a time. The bytes depend on the arrays alone (entries
    in the parts' order, with zip's fixed date of 1980). Yields what is done and the whole, for a
    progress bar; the file is complete when the iterator ends.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with np.load(parts[0], allow_pickle=False) as first:
            layout = {key: (first[key].dtype, first[key].shape[1:]) for key in first.files}
        rows = sum(_rows(part) for part in parts)
        done, whole = 0, len(layout) * len(parts)
        for key, (dtype, tail) in layout.items():
            entry = zipfile.ZipInfo(f"{key}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                described = {
                    "descr": npy.dtype_to_descr(dtype),
                    "fortran_order": False,
                    "shape": (rows, *tail),
                }
                npy.write_array_header_1_0(file, described)
                for part in parts:
                    with np.load(part, allow_pickle=False) as arrays:
                        file.write(np.ascontiguousarray(arrays[key]).tobytes())
                    done += 1
                    yield done, whole
    sync(path)


def _rows(part: Path) -> int:
    with np.load(part, allow_pickle=False) as arrays:
        return len(arrays["terminals"])
