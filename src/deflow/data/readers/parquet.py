"""Reader of Parquet: one file, or a folder of files that belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deflow.core.errors import DeFlowError
from deflow.data.columns_map import Columns
from deflow.data.guards import require_memory
from deflow.data.readers.arrow import column_numbers
from deflow.data.readers.assemble import Table, assemble
from deflow.data.readers.footer import column_sizes
from deflow.data.readers.guards import (
    one_error,
    require_inside,
    require_package,
    watched,
)
from deflow.data.readers.hdf5 import natural
from deflow.data.readers.raw import RawData

Array = np.ndarray[Any, Any]

_BATCH = 1 << 14
"""Rows that are decoded at a time, at most."""

_BATCH_BYTES = 1 << 26
"""Bytes that are decoded at a time, about, where a row takes as many as the first."""

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "FLOAT": 4, "DOUBLE": 8}
"""Bytes of a number; any other kind is refused once its type is seen."""


def read(path: Path, columns: Columns) -> RawData:
    """The data of a .parquet file, or of all in a folder, in the order of their numbers.

    A vector is a column of lists, or several columns of numbers that `columns` joins. In a folder
    of several files each is a trajectory of its own, cut after its last row, unless timeouts,
    lengths or an episode column say where trajectories end.

    Raises:
        DeFlowError: a file that is absent, damaged or lies outside the folder, another type than
            numbers, empty cells, ragged lists, or columns that are absent or do not fit.
    """
    return assemble(table(path, parquet_files(path)), columns)


def table(
    path: Path, files: Sequence[Path], usual: Mapping[str, tuple[str, ...]] | None = None
) -> Table:
    """The columns of some Parquet files as one table; see `Table` for `usual`."""
    names = column_names(files[0])
    labels = [file.name for file in files] if len(files) > 1 else ()
    return Table(
        path, names, lambda wanted: read_files(files, wanted), files=labels, usual=usual or {}
    )


def parquet_files(folder: Path, pattern: str = "**/*.parquet") -> list[Path]:
    """The Parquet files in a folder, or the file itself; none that lies elsewhere."""
    if not folder.exists():
        raise DeFlowError(f"There is no file {folder}.")
    if not folder.is_dir():
        return [folder]
    found = [file for file in folder.glob(pattern) if not file.name.startswith((".", "_"))]
    files = [require_inside(folder, file) for file in found if file.is_file()]
    if not files:
        raise DeFlowError(f"{folder} holds no file that fits {pattern}; there is nothing to read.")
    return sorted(files, key=lambda file: natural(file.relative_to(folder).as_posix()))


def column_names(file: Path) -> list[str]:
    """The names of a Parquet file's columns."""
    require_package("pyarrow", "files", file)
    import pyarrow.parquet as pq

    with one_error(file, "Parquet file"), pq.ParquetFile(file) as opened:
        return list(opened.schema_arrow.names)


def read_files(files: Sequence[Path], wanted: Sequence[str]) -> Mapping[str, list[Array]]:
    """The named columns, an array for each file, of one type and width."""
    found: dict[str, list[Array]] = {name: [] for name in wanted}
    held = 0
    for file in watched(files, "files"):
        with one_error(file, "Parquet file"):
            for name, column in read_columns(file, wanted).items():
                found[name].append(column_numbers(column, f"{file.name}: {name}"))
                held += found[name][-1].nbytes
        require_memory(file.parent, held, held)
    for name, arrays in found.items():
        widths = {array.shape[1:] for array in arrays if len(array)}
        if len(widths) > 1:
            raise DeFlowError(
                f"{name!r} has rows of different widths in {files[0].parent}; every file must have "
                "the same."
            )
    return {name: _of_one_kind(arrays) for name, arrays in found.items()}


def _of_one_kind(arrays: list[Array]) -> list[Array]:
    """Whole numbers in one file and fractions in another are both fractions; a file without rows
    has the others' width and type."""
    filled = [array for array in arrays if len(array)] or arrays[:1]
    common, width = np.result_type(*filled), filled[0].shape[1:]
    return [array.astype(common, copy=False).reshape(len(array), *width) for array in arrays]


def read_columns(file: Path, wanted: Sequence[str]) -> dict[str, Any]:
    """The named columns of one file, as Arrow has them.

    A run of one value takes next to nothing in the file. So what the footer declares is judged
    first, one row is decoded next, and then batches of as many rows as such take little memory;
    what they hold is judged again as they come, since a label's length stands in no footer.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with one_error(file, "Parquet file"), pq.ParquetFile(file) as opened:
        schema = opened.schema_arrow
        for name in wanted:
            if schema.names.count(name) != 1:
                raise DeFlowError(
                    f"{file} has {schema.names.count(name) or 'no'} columns {name!r}."
                )
        require_memory(file, _declared(file, opened, wanted))
        probe = next(opened.iter_batches(batch_size=1, columns=list(wanted)), None)
        size = _BATCH_BYTES // max(probe.nbytes, 1) if probe else _BATCH
        size = min(max(size, 1), _BATCH)
        rows, seen, held = opened.metadata.num_rows, 0, 0
        chunks: dict[str, list[Any]] = {name: [] for name in wanted}
        for batch in opened.iter_batches(batch_size=size, columns=list(wanted)):
            seen, held = seen + batch.num_rows, held + batch.nbytes
            require_memory(file, held * max(rows, seen) // max(seen, 1), held)
            for name, column in chunks.items():
                column.append(batch.column(batch.schema.get_field_index(name)))
        return {
            name: pa.chunked_array(column, type=None if column else schema.field(name).type)
            for name, column in chunks.items()
        }


def _declared(file: Path, opened: Any, wanted: Sequence[str]) -> int:
    """Bytes of the named columns, as the footer declares them."""
    total = 0
    for index, (count, size) in enumerate(column_sizes(file)):
        leaf = opened.metadata.schema.column(index)
        # Arrow takes a column's name for all names that begin with it and a dot.
        if any(f"{leaf.path}.".startswith(f"{name}.") for name in wanted):
            total += max(count * _WIDTHS.get(leaf.physical_type, 1), size)
    return total
