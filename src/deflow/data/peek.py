"""What a user's file holds, told without reading it: the names of its columns, and frames."""

from __future__ import annotations

import zipfile
from pathlib import Path

from deflow.data.columns_map import Columns
from deflow.data.hdf5 import shape_of
from deflow.data.npz import header
from deflow.data.readers import hdf5, parquet

_HDF5 = (".h5", ".hdf5")


def column_names(path: Path) -> list[str]:
    """The full names of a file's columns; of a folder of Parquet files, those of its first.

    An .npz file that cannot be opened has none: its reader says what is wrong with it. Raises
    `DeFlowError` as the other readers do.
    """
    kind = path.suffix.lower()
    if kind in _HDF5:
        return hdf5.dataset_names(path)
    if kind != ".npz":
        return parquet.column_names(parquet.parquet_files(path)[0])
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except Exception:  # As zip fails in many ways.
        return []


def in_ogbench_layout(path: Path) -> bool:
    """Whether an .npz file holds trajectories without rewards, as OGBench's sets do."""
    if path.suffix.lower() != ".npz" or not path.is_file():
        return False
    names = column_names(path)
    return "rewards" not in names and {"observations", "actions", "terminals"} <= {*names}


def holds_frames(path: Path, columns: Columns | None = None) -> bool:
    """Whether a file's observations are arrays of four dimensions, as frames are.

    Only .npz and HDF5 files can hold such. A file that cannot be opened holds none.
    """
    named = columns.observations if columns else ()
    first = named[0] if named else "observations"
    kind = path.suffix.lower()
    if not path.is_file() or kind not in (".npz", *_HDF5):
        return False
    try:
        npz = kind == ".npz"
        shape = _npz_shape(path, first) if npz else _hdf5_shape(path, first, columns or Columns())
    except Exception:  # Its reader says what is wrong with it.
        return False
    return len(shape) == 4


def _npz_shape(path: Path, name: str) -> tuple[int, ...]:
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        return header(file)[0]


def _hdf5_shape(path: Path, name: str, columns: Columns) -> tuple[int, ...]:
    """Of the column itself, or of the first episode's."""
    names = hdf5.dataset_names(path)
    within = "" if name in names else hdf5.episode_groups(path, names, name, columns)[0]
    return shape_of(path, within + name)
