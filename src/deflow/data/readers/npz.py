"""Reader of .npz files of flat arrays."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from deflow.core.errors import DeFlowError
from deflow.data.columns_map import Columns
from deflow.data.npz import Array, read_npz
from deflow.data.readers.assemble import Table, assemble
from deflow.data.readers.guards import require_memory
from deflow.data.readers.raw import RawData


def read(path: Path, columns: Columns) -> RawData:
    """The data of an .npz file, its arrays chosen by `columns`.

    Raises:
        DeFlowError: as `read_npz`; a file that would exhaust memory; columns that do not fit.
    """
    judge_sizes(path)
    arrays = read_npz(path)

    def chosen(names: Sequence[str]) -> Mapping[str, list[Array]]:
        return {name: [arrays[name]] for name in names}

    return assemble(Table(path, list(arrays), chosen), columns)


def judge_sizes(path: Path) -> None:
    """Raise `DeFlowError` where the archive would not fit into memory, or hides its size.

    A file that is no archive at all is left to `read_npz`, which says what it is.
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
    require_memory(path, sum(member.file_size for member in members))
