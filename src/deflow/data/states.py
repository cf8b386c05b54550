"""States and actions of a set or of a user's own data, for what needs no rewards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from deflow.data.columns_map import NONE, ZERO, Columns
from deflow.data.d4rl import TASKS, load_d4rl
from deflow.data.dataset import Dataset
from deflow.data.folder import data_folder
from deflow.data.iav import seen_as_pictures
from deflow.data.names import is_visual, parse_dataset
from deflow.data.ogbench import LAYOUT, Arrays, locate_set, read_set, to_dataset
from deflow.data.own import Given, is_own, load_own, reader_of, refuse_with_a_set
from deflow.data.peek import column_names, holds_frames, in_ogbench_layout
from deflow.data.readers import lerobot, minari
from deflow.data.transforms import Box

_TERMINALS = ("terminals", "terminations")
"""Names that a column of terminations goes by, unless another is named."""


def load_states(
    name: str,
    data_dir: Path | None = None,
    *,
    columns: Given = None,
    bounds: Box | None = None,
    normalize_observations: bool = False,
) -> Dataset:
    """The trajectories of a set by its or a task's name, or of a user's own data; rewards are 0.

    Own data need no column of rewards, and where no column tells of terminations, nothing
    terminated. Actions lie in [-1, 1], in the units that agents learn in.

    Args:
        name: as `deflow.data.inspect.inspect` takes it.
        data_dir: the data folder.
        columns, bounds, normalize_observations: of own data; see `load_own`.

    Raises:
        DeFlowError: the observations are pictures (known before they are read); options for own
            data beside a set's name; else as `load_own` and `load_task`.
    """
    if is_own(name):
        return _own_states(name, Columns.of(columns), bounds, normalize_observations)
    refuse_with_a_set(
        name,
        columns=columns,
        action_bounds=bounds,
        normalize_observations=normalize_observations,
    )
    if name in TASKS:
        return load_d4rl(TASKS[name], data_folder(data_dir))
    dataset = parse_dataset(name)
    if is_visual(dataset):
        raise seen_as_pictures(name)
    return unlabelled(dataset, read_set(locate_set(dataset, data_dir)))


def unlabelled(name: str, arrays: Arrays) -> Dataset:
    """A set in OGBench's layout before any task rewards it: rewards 0, masks 1."""
    count = len(arrays["observations"])
    return to_dataset(name, arrays, np.zeros(count, np.float32), np.ones(count, np.float32))


def _own_states(name: str, columns: Columns, bounds: Box | None, normalize: bool) -> Dataset:
    path = Path(name).expanduser()
    if holds_frames(path, columns):
        raise seen_as_pictures(name)
    plain = columns == Columns() and bounds is None and not normalize
    if plain and in_ogbench_layout(path) and {*LAYOUT} <= {*column_names(path)}:
        return unlabelled(path.name, read_set(path))
    wanted = _without_rewards(name, path, columns)
    return load_own(name, wanted, bounds=bounds, normalize_observations=normalize).dataset


def _without_rewards(name: str, path: Path, columns: Columns) -> Columns:
    """The columns, where none need tell of rewards or terminations."""
    reader = minari.read if name.startswith(minari.PREFIX) else reader_of(path)
    if reader is minari.read:
        return columns  # Its format holds both.
    columns = replace(columns, rewards=ZERO)
    if columns.terminals or reader is lerobot.read:
        return columns
    last_words = {full.rpartition("/")[2] for full in column_names(path)}
    return columns if last_words & {*_TERMINALS} else replace(columns, terminals=NONE)
