"""Reading foreign HDF5 files safely: numbers that lie in the file itself, and nothing else."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from deflow.core.errors import DeFlowError, first_line
from deflow.core.memory import available_memory
from deflow.core.progress import progress_bar
from deflow.data.guards import require_memory

Array = np.ndarray[Any, Any]

_DEFLATE, _SHUFFLE, _CHECKSUM, _LZF = 1, 2, 3, 32000
_FILTERS = (_DEFLATE, _SHUFFLE, _CHECKSUM, _LZF)
"""Those that come with h5py; any other would be loaded as a plugin, which is foreign code."""

_INFLATION = 1032
"""Deflate cannot make more than so many bytes out of one."""

_SLACK = 1 << 16
"""Bytes by which a filtered chunk may exceed what it holds: checksums, and numbers that do not
compress."""

_SLOW = 1 << 28
"""Bytes that take long enough to read for a progress bar."""


def read_hdf5(
    path: Path, *, required: Sequence[str] = (), wanted: Collection[str] | None = None
) -> dict[str, Array]:
    """Every numeric dataset of an HDF5 file by its full name, such as `infos/qpos`.

    Everything is judged before anything is read, and nothing outside the file is ever opened. Text
    is passed over where no names are given, as published sets keep notes in it; by its name, text
    of a fixed length is read as bytes.

    Args:
        path: the file.
        required: names that must be there.
        wanted: read only these (where they are there) and those required; all by default.

    Raises:
        DeFlowError: the file is absent, empty, open in the program that writes it, truncated or no
            HDF5, lacks a required name, needs more memory than there is, holds links or storage
            that lead elsewhere, names that leave the data, or compression that h5py does not bring;
            or a dataset to be read holds no plain numbers (objects, references, compounds, ragged
            rows).
    """
    names = None if wanted is None else {*wanted, *required}
    with _opened(path) as file:
        found = dict(_datasets(path, file))
        missing = [name for name in required if name not in found]
        if missing:
            some = ", ".join(map(repr, list(found)[:20])) or "nothing"
            raise DeFlowError(f"{path} lacks {', '.join(missing)} (it holds {some}).")
        chosen = {
            name: dataset
            for name, dataset in found.items()
            if (name in names if names is not None else not _is_text(dataset))
        }
        for name, dataset in chosen.items():
            _judge(path, name, dataset)
        _judge_memory(path, chosen)
        return _read(path, chosen)


def names_of(path: Path) -> list[str]:
    """The full name of every dataset, judged as `read_hdf5` does; one with two names has both."""
    with _opened(path) as file:
        return sorted(name for name, _ in _datasets(path, file))


def shape_of(path: Path, name: str) -> tuple[int, ...]:
    """The shape of a dataset, judged as `read_hdf5` does before it is asked for."""
    with _opened(path) as file:
        dataset = dict(_datasets(path, file))[name]
        _judge(path, name, dataset)
        return tuple(dataset.shape)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, and whatever goes wrong while it is open as one `DeFlowError`."""
    import h5py

    try:
        if not path.is_file():
            raise DeFlowError(f"There is no file {path}.")
        if path.stat().st_size == 0:
            raise DeFlowError(f"{path} is empty; put a whole file in its place.")
        with h5py.File(path, "r") as file:
            yield file
    except DeFlowError:
        raise
    except PermissionError as error:
        raise DeFlowError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # A damaged file fails in as many ways as HDF5 and zlib have.
        if isinstance(error, BlockingIOError) or "already open for write" in str(error):
            raise DeFlowError(
                f"{path} is still open in the program that writes it, or was not closed there; "
                "close it first (h5clear -s closes what a program that died left open)."
            ) from error
        raise DeFlowError(
            f"{path} is truncated, damaged or no HDF5 file ({first_line(error)}); put a sound copy "
            "in its place."
        ) from error


def _datasets(path: Path, file: Any) -> Iterator[tuple[str, Any]]:
    """(name, dataset) of all that hard links lead to, without following any other link."""
    import h5py

    seen: set[int] = set()
    todo = [("", file)]
    while todo:
        prefix, group = todo.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            raise DeFlowError(
                f"{path}: the group {prefix.rstrip('/')!r} is linked twice, so its names lead in "
                "circles; write the file again without links."
            )
        seen.add(address)
        for key in group:
            name = prefix + key
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise DeFlowError(
                    f"{path}: {name!r} is a link to elsewhere, and links are not followed; write "
                    "the file again with the data in its place."
                )
            if key in (".", "..") or "\\" in key or "\0" in key:
                raise DeFlowError(
                    f"{path}: {name!r} is a name that leaves the data; write the file again with "
                    "plain names."
                )
            member = group.get(key)
            if isinstance(member, h5py.Group):
                todo.append((f"{name}/", member))
            elif isinstance(member, h5py.Dataset):
                yield name, member


def _is_text(dataset: Any) -> bool:
    import h5py

    return bool(dataset.id.get_type().get_class() == h5py.h5t.STRING)


def _judge(path: Path, name: str, dataset: Any) -> None:
    """Raise where a dataset is not plain numbers in the file itself."""
    import h5py

    def refuse(reason: str, remedy: str) -> DeFlowError:
        return DeFlowError(f"{path}: {name!r} {reason}; {remedy}.")

    # Asked before the shape: for that of a virtual dataset HDF5 may open the files it is made of.
    if dataset.is_virtual or dataset.external:
        raise refuse("keeps its numbers in other files, which are not opened", "copy them into it")
    kind = dataset.id.get_type()
    if _is_text(dataset) and kind.is_variable_str():
        raise refuse(
            "holds text of any length, and numbers and text of a fixed length are read",
            "save it as numpy.asarray(labels, 'S')",
        )
    # PyTables keeps booleans as bit fields, which h5py reads as whole numbers.
    plain = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM, h5py.h5t.BITFIELD, h5py.h5t.STRING)
    if kind.get_class() not in plain or dataset.dtype.kind not in "fiubS":
        raise refuse("holds no plain numbers (objects or compounds)", "save it as an array")
    if dataset.shape is None:
        raise refuse("holds nothing at all", "save it as an array")
    pipeline = dataset.id.get_create_plist()
    codes = [pipeline.get_filter(i)[0] for i in range(pipeline.get_nfilters())]
    foreign = [str(code) for code in codes if code not in _FILTERS]
    if foreign or len(set(codes)) < len(codes) or not _ends_deflated(codes):
        raise refuse(
            "is compressed in a way that is not read here "
            f"(filter {', '.join(foreign or map(str, codes))})",
            "save it with compression='gzip' or none",
        )
    if dataset.chunks is not None and codes:
        _judge_chunks(path, name, dataset, codes)


def _ends_deflated(codes: Sequence[int]) -> bool:
    """Whether a chunk lies in the file as deflate left it, but for a checksum behind it: what it
    inflates to is known from its own bytes."""
    return _DEFLATE not in codes or set(codes[codes.index(_DEFLATE) + 1 :]) <= {_CHECKSUM}


def _judge_chunks(path: Path, name: str, dataset: Any, codes: Sequence[int]) -> None:
    """Raise where a chunk, once inflated, would be larger than what it claims to hold."""
    # A chunk's mask has a bit for each filter that was left out; 0 where there is no deflate.
    deflate = 1 << codes.index(_DEFLATE) if _DEFLATE in codes else 0
    room = _chunk_bytes(dataset) + _SLACK
    available = available_memory()
    chunks: list[Any] = []
    dataset.id.chunk_iter(chunks.append)
    for chunk in chunks:
        bomb = chunk.size > room
        if deflate and not bomb and chunk.size * _INFLATION > max(available // 4, room):
            mask, raw = dataset.id.read_direct_chunk(chunk.chunk_offset)
            bomb = not mask & deflate and _inflates_beyond(raw, room)
        if bomb:
            raise DeFlowError(
                f"{path}: {name!r} has a chunk that holds more than it declares; the file is "
                "damaged or meant to exhaust memory, so fetch or make it again."
            )


def _inflates_beyond(raw: bytes, room: int) -> bool:
    inflater = zlib.decompressobj()
    size, rest = 0, raw
    while rest and size <= room and not inflater.eof:
        size += len(inflater.decompress(rest, 1 << 20))
        rest = inflater.unconsumed_tail
    return size > room


def _chunk_bytes(dataset: Any) -> int:
    size = dataset.dtype.itemsize
    for length in dataset.chunks or ():
        size *= int(length)
    return int(size)


def _judge_memory(path: Path, datasets: dict[str, Any]) -> None:
    """Raise where the numbers, or one chunk on its way, would not fit into memory."""
    need = sum(_bytes(dataset) for dataset in datasets.values())
    need += max((_chunk_bytes(d) for d in datasets.values() if d.chunks is not None), default=0)
    require_memory(path, need)


def _bytes(dataset: Any) -> int:
    size = dataset.dtype.itemsize
    for length in dataset.shape:
        size *= int(length)  # Python's integers do not wrap around, as NumPy's do.
    return int(size)


def _read(path: Path, datasets: dict[str, Any]) -> dict[str, Array]:
    sizes = {name: _bytes(dataset) for name, dataset in datasets.items()}
    total, done = sum(sizes.values()), 0
    arrays: dict[str, Array] = {}
    with progress_bar(transient=True) if total > _SLOW else nullcontext() as bar:
        shown = f"{path.name}, MiB"
        task = bar.add_task(shown, total=total >> 20, note="") if bar else None
        for name, dataset in datasets.items():
            arrays[name] = np.asarray(dataset[()])
            done += sizes[name]
            if bar and task is not None:
                bar.update(task, completed=done >> 20)
    return arrays
