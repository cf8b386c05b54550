"""Reader of Minari's sets, in its HDF5, Arrow and Parquet layouts, without running Minari."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deflow.core.errors import DeFlowError
from deflow.core.progress import console
from deflow.data.columns_map import Columns
from deflow.data.guards import require_memory
from deflow.data.readers.arrow import column_numbers
from deflow.data.readers.assemble import Table, assemble
from deflow.data.readers.documents import environment_of, read_object
from deflow.data.readers.guards import (
    one_error,
    require_inside,
    require_package,
    watched,
)
from deflow.data.readers.hdf5 import dataset_names, read_groups
from deflow.data.readers.ipc import read_ipc
from deflow.data.readers.parquet import parquet_files, read_columns
from deflow.data.readers.raw import Environment, RawData
from deflow.data.readers.spaces import Part, bounds_of, parts_of

Array = np.ndarray[Any, Any]

PREFIX = "minari:"
"""`minari:pen/human-v2` names a set by its id, where a path would stand."""

VARIABLE = "MINARI_DATASETS_PATH"
"""Minari's own variable for the folder of its sets; `~/.minari/datasets` by default."""

ID = re.compile(r"([-_\w]+/)*[-_\w]+-v\d+", re.ASCII)
"""What the id of a set looks like: no dots, so that it leads out of no folder."""

_NUMBERS = {"rewards": "rewards", "terminals": "terminations", "timeouts": "truncations"}


def read(path: Path, columns: Columns) -> RawData:
    """The data of a set's folder (or of the folder `data` in it).

    Observations in a dictionary or tuple are joined in the order of their space, which is that of
    Gymnasium's FlattenObservation. A trajectory of T actions holds T+1 observations. Bounds of the
    actions come from their space; the environment from the set's description where Gymnasium knows
    its id, the one for evaluation before the one of collection.

    Raises:
        DeFlowError: columns are named, as Minari names its own; the set is damaged, lacks episodes,
            or has spaces other than boxes.
    """
    if columns != Columns():
        raise DeFlowError(f"{path} is a Minari set, which names its own columns; give none.")
    folder = require_inside(path, path / "data") if (path / "data").is_dir() else path
    metadata = read_object(require_inside(path, folder / "metadata.json"))
    for space in ("observation_space", "action_space"):
        if space not in metadata:
            raise DeFlowError(
                f"{folder / 'metadata.json'} does not describe the {space.replace('_', ' ')}; make "
                "the set again with Minari 0.5 or newer."
            )
    leaves = parts_of(metadata["observation_space"], "observations of the set")
    actions = parts_of(metadata["action_space"], "actions of the set")
    if len(actions) != 1 or actions[0].keys:
        raise DeFlowError(f"{path} has actions in several parts; the agents need one vector.")
    bounds = bounds_of(metadata["action_space"], "actions of the set")
    episodes = metadata.get("total_episodes")
    if type(episodes) is not int or episodes < 1:
        raise DeFlowError(f"{path} declares {str(episodes)[:20]} episodes; there must be some.")
    table = _table(folder, metadata.get("data_format", "hdf5"), episodes, leaves, actions[0])
    named = {"observations": tuple(map(_name, leaves)), "actions": ("actions",), **_NUMBERS}
    raw = assemble(table, Columns.from_json(named))
    declared = str(metadata.get("dataset_id", ""))[:200]
    return replace(
        raw,
        name=declared if ID.fullmatch(declared) else path.name,
        bounds=bounds,
        environment=_environment(metadata, path, flatten=bool(leaves[0].keys)),
    )


def datasets_folder() -> Path:
    """Where Minari keeps its sets."""
    return Path(os.environ.get(VARIABLE) or "~/.minari/datasets").expanduser()


def locate(name: str) -> Path:
    """The folder of a set by its id, where Minari keeps its sets.

    Raises:
        DeFlowError: no id, or not there (the nearest that are, and how to fetch it, are told).
    """
    if not ID.fullmatch(name):
        raise DeFlowError(f"{name!r} is no id of a Minari set; one looks like 'door/human-v2'.")
    root = datasets_folder()
    folder = root / name
    if (folder / "data").is_dir():
        return folder
    there = [
        str(found.parent.parent.relative_to(root)) for found in root.glob("**/data/metadata.json")
    ]
    near = difflib.get_close_matches(name, there, n=3, cutoff=0.3)
    hint = f" (there are {', '.join(near)})" if near else ""
    raise DeFlowError(
        f"There is no Minari set {name!r} in {root}{hint}; fetch it with: minari download {name}"
    )


def _table(
    folder: Path, layout: Any, episodes: int, leaves: Sequence[Part], actions: Part
) -> Table:
    """The set's columns, a part for each episode."""
    widths = {_name(leaf): leaf.width for leaf in leaves} | {"actions": actions.width}
    read: Callable[[Sequence[str]], Mapping[str, list[Array]]]
    if layout == "hdf5":
        file = require_inside(folder, folder / "main_data.hdf5")
        there = {name.partition("/")[0] for name in dataset_names(file)}
        found = sum(name.startswith("episode_") for name in there)
        read = partial(_read_hdf5, file, episodes, widths)
    elif layout in ("arrow", "parquet"):
        require_package("pyarrow", "files", folder)
        found = sum(place.name.isdecimal() and place.is_dir() for place in folder.iterdir())
        read = partial(_read_arrow, folder, layout, episodes, leaves, widths)
    else:
        raise DeFlowError(
            f"{folder} is in the layout {str(layout)[:20]!r}; hdf5, arrow and parquet are read."
        )
    if found != episodes:
        raise DeFlowError(
            f"{folder} holds {found} episodes, and its description declares {str(episodes)[:20]}; "
            "fetch the set again."
        )
    labels = [f"episode {index}" for index in range(episodes)]
    return Table(folder, [*widths, *_NUMBERS.values()], read, episodes=labels)


def _read_hdf5(
    file: Path, episodes: int, widths: Mapping[str, int], wanted: Sequence[str]
) -> Mapping[str, list[Array]]:
    groups = [f"episode_{index}/" for index in range(episodes)]
    arrays = read_groups(file, groups, wanted)
    return {name: _checked(file, name, widths, found) for name, found in arrays.items()}


def _read_arrow(
    folder: Path,
    layout: str,
    episodes: int,
    leaves: Sequence[Part],
    widths: Mapping[str, int],
    wanted: Sequence[str],
) -> Mapping[str, list[Array]]:
    arrays: dict[str, list[Array]] = {name: [] for name in wanted}
    keys = {_name(leaf): leaf.keys for leaf in leaves}
    held = 0
    for index in watched(range(episodes), "episodes"):
        place = require_inside(folder, folder / str(index))
        with one_error(place, "Minari episode"):
            columns = _columns(place, layout)
            for name in wanted:
                top = "observations" if name in keys else name
                label = f"{name} of episode {index}"
                column = column_numbers(_inner(columns[top], keys.get(name, ())), label)
                # The row of the last observation is filled up with an action that was not taken.
                arrays[name].append(column if name in keys else column[:-1])
                held += column.nbytes
        require_memory(folder, held, held)
    return {name: _checked(folder, name, widths, found) for name, found in arrays.items()}


def _columns(folder: Path, layout: str) -> Mapping[str, Any]:
    """An episode's columns, as Arrow has them."""
    top = ("observations", "actions", *_NUMBERS.values())
    files = parquet_files(folder, f"*.{layout}")
    if len(files) != 1:
        raise DeFlowError(f"{folder} holds {len(files)} files, and must hold one episode in one.")
    if layout == "parquet":
        return read_columns(files[0], top)
    table = read_ipc(files[0])
    for name in top:
        if table.column_names.count(name) != 1:
            raise DeFlowError(f"{files[0]} has {table.column_names.count(name)} columns {name!r}.")
    return {name: table.column(name) for name in top}


def _inner(column: Any, keys: Sequence[str | int]) -> Any:
    """The part of a structure that the keys lead to."""
    import pyarrow as pa

    for key in map(str, keys):
        column.validate(full=True)
        kind = column.type
        if not pa.types.is_struct(kind) or len(kind.get_all_field_indices(key)) != 1:
            raise DeFlowError(f"The observations lack the part {key!r} that their space names.")
        index = kind.get_field_index(key)
        column = pa.chunked_array(
            [chunk.flatten()[index] for chunk in column.chunks], type=kind.field(index).type
        )
    return column


def _checked(place: Path, name: str, widths: Mapping[str, int], arrays: list[Array]) -> list[Array]:
    """Arrays of a box as [rows, width]; numbers per step as they are."""
    if name not in widths:
        return arrays
    for index, array in enumerate(arrays):
        if array.ndim == 0 or array.size != len(array) * widths[name]:
            raise DeFlowError(
                f"{place}: {name} of episode {index} have shape {array.shape}, and their space has "
                f"{widths[name]} numbers."
            )
    return [array.reshape(len(array), widths[name]) for array in arrays]


def _name(leaf: Part) -> str:
    """A part's name in the HDF5 layout: `observations/achieved_goal`, `observations/_index_0`."""
    words = (f"_index_{key}" if isinstance(key, int) else key for key in leaf.keys)
    return "/".join(("observations", *words))


def _environment(metadata: Mapping[str, Any], path: Path, *, flatten: bool) -> Environment | None:
    reasons = []
    for environment, reason in _candidates(metadata, flatten):
        if environment:
            return environment
        reasons.append(reason)
    if reasons:
        console.print(
            f"{path.name}: its environment is not taken ({reasons[0]}); name one with --env."
        )
    return None


def _candidates(
    metadata: Mapping[str, Any], flatten: bool
) -> Iterator[tuple[Environment | None, str]]:
    for key in ("eval_env_spec", "env_spec"):
        if metadata.get(key) is not None:
            yield environment_of(metadata[key], flatten=flatten)
