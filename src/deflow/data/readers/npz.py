"""Reader of .npz files of flat arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from deflow.data.columns_map import Columns
from deflow.data.npz import Array, read_npz
from deflow.data.readers.assemble import Table, assemble
from deflow.data.readers.raw import RawData


def read(path: Path, columns: Columns) -> RawData:
    """The data of an .npz file, its arrays chosen by `columns`.

    Raises:
        DeFlowError: as `read_npz`; columns that do not fit.
    """
    arrays = read_npz(path)

    def chosen(names: Sequence[str]) -> Mapping[str, list[Array]]:
        return {name: [arrays[name]] for name in names}

    return assemble(Table(path, list(arrays), chosen), columns)
