"""Reader of HDF5 files: flat columns, or a group for each episode."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deflow.core.errors import DeFlowError
from deflow.data.columns_map import Columns
from deflow.data.hdf5 import names_of, read_hdf5
from deflow.data.readers.assemble import Table, assemble, known_names
from deflow.data.readers.guards import require_package
from deflow.data.readers.raw import RawData

Array = np.ndarray[Any, Any]


def read(path: Path, columns: Columns) -> RawData:
    """The data of an HDF5 file.

    Flat where the observations' column is found by its full name (`obs`, `data/obs`). Otherwise
    each group that holds it is an episode (`episode_3/obs`, `data/demo_3/obs/joints`), in the order
    of their numbers, and columns are named from within the group.

    Raises:
        DeFlowError: as `read_hdf5`; columns that are absent or do not fit.
    """
    names = dataset_names(path)
    first = columns.observations[0] if columns.observations else "observations"
    groups = [] if first in names else episode_groups(path, names, first, columns)
    if not groups:
        return assemble(Table(path, names, lambda wanted: _flat(path, wanted)), columns)
    inside = [name.removeprefix(groups[0]) for name in names if name.startswith(groups[0])]
    labels = [group.rstrip("/") for group in groups]
    return assemble(
        Table(path, inside, lambda wanted: read_groups(path, groups, wanted), labels), columns
    )


def dataset_names(path: Path) -> list[str]:
    """The full name of every dataset in the file, which is judged as `read_hdf5` does."""
    require_package("h5py", "files", path)
    return names_of(path)


def episode_groups(path: Path, names: Sequence[str], first: str, columns: Columns) -> list[str]:
    """The groups, each with its slash, that hold a column of this name, by their numbers.

    Raises:
        DeFlowError: they lie at several depths, or an episode beside them (a group that holds
            another of the columns, or is named as they are but for its number) lacks the column.
    """
    groups = [name.removesuffix(first) for name in names if name.endswith(f"/{first}")]
    parents = {group.rstrip("/").rpartition("/")[0] for group in groups}
    if len(parents) > 1:
        raise DeFlowError(
            f"{path} holds {first!r} at several depths (under {', '.join(sorted(parents)[:4])}); "
            "name the columns in full, or keep all episodes in one group."
        )
    roles, alike = known_names(columns), {_unnumbered(group) for group in groups}
    for parent in parents:
        within = f"{parent}/" if parent else ""
        inner = (name.removeprefix(within) for name in names if name.startswith(within))
        parts = (name.partition("/") for name in inner)
        beside = {
            f"{within}{group}/"
            for group, _, column in parts
            if column in roles or (column and _unnumbered(f"{within}{group}/") in alike)
        }
        if without := sorted(beside - set(groups), key=natural):
            raise DeFlowError(
                f"{path}: {without[0].rstrip('/')} holds no {first!r}, as {groups[0].rstrip('/')} "
                "beside it does; complete that episode or take it out of the file."
            )
    return sorted(groups, key=natural)


def read_groups(
    path: Path, groups: Sequence[str], wanted: Sequence[str]
) -> Mapping[str, list[Array]]:
    """The named columns of every group; raises `DeFlowError` where one lacks a column."""
    full = {name: [group + name for group in groups] for name in wanted}
    every = [name for found in full.values() for name in found]
    arrays = read_hdf5(path, required=every, wanted=every)
    return {name: [arrays.pop(each) for each in found] for name, found in full.items()}


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts `demo_2` before `demo_10`."""
    parts = re.split(r"([0-9]+)", name)
    digits = [part.lstrip("0") for part in parts[1::2]]
    # By length and then by digits: a number in a name may have more of them than Python converts.
    numbers = [(len(stripped), stripped) for stripped in digits]
    keys = [(-1, part) for part in parts]
    keys[1::2] = numbers
    return keys


def _unnumbered(name: str) -> str:
    """`demo_#` for `demo_12`."""
    return re.sub("[0-9]+", "#", name)


def _flat(path: Path, wanted: Sequence[str]) -> Mapping[str, list[Array]]:
    arrays = read_hdf5(path, required=wanted, wanted=wanted)
    return {name: [arrays[name]] for name in wanted}
