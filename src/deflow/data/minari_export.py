"""Writing a `Dataset` as a Minari set, in the HDF5 layout that Minari itself loads."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from deflow.core.entry import registered
from deflow.core.errors import DeFlowError, first_line
from deflow.core.files import folder_made_whole, write_json
from deflow.core.progress import progress_bar
from deflow.data.dataset import Dataset
from deflow.data.folder import ensure_writable
from deflow.data.readers.guards import require_package
from deflow.data.readers.minari import ID, datasets_folder
from deflow.data.readers.raw import Environment
from deflow.data.transforms import Box

Episode = dict[str, np.ndarray[Any, Any]]

LAYOUT_VERSION = "0.5.0"
"""The oldest of Minari's versions that describe their spaces as we do; every 0.5 loads it."""


def export_minari(
    dataset: Dataset,
    dataset_id: str,
    *,
    root: Path | None = None,
    box: Box | None = None,
    environment: Environment | None = None,
    description: str = "",
    author: str = "",
) -> Path:
    """Write the dataset as `<root>/<dataset_id>/data/{main_data.hdf5,metadata.json}`.

    Every trajectory becomes an episode of T actions and T+1 observations. A trajectory's last step
    is a truncation unless it terminated; rows that terminate in its midst, as OGBench's successes
    do, stay marked as terminations.

    Args:
        dataset: to be written; its actions lie in [-1, 1].
        dataset_id: such as `cube/play-v0`.
        root: Minari's folder of sets; by default where Minari looks for them.
        box: bounds that the dataset's actions were scaled from: they are written in its units, and
            it is declared as their space. Without one they stay in [-1, 1].
        environment: the registered environment to name in the set, with its arguments.
        description: a sentence for those who find the set.
        author: who made it.

    Returns:
        The folder of the set.

    Raises:
        DeFlowError: no id, a set of that id is there already, the folder cannot be written, the
            environment is not registered, observations are frames, or those of a trajectory do
            not follow one another.
    """
    target = minari_target(dataset_id, root)
    if dataset.observations.ndim != 2:
        raise DeFlowError(f"{dataset.name} holds frames, and only vectors are written here.")
    spec = _env_spec(environment)
    sides = (box.low, box.high) if box else ((-1.0,), (1.0,))
    _require_chains(dataset)
    ensure_writable(target.parent)
    try:
        with folder_made_whole(target) as draft:
            (draft / "data").mkdir()
            file = draft / "data" / "main_data.hdf5"
            episodes, steps = _write_episodes(dataset, box, file)
            metadata = {
                "dataset_id": dataset_id,
                "minari_version": LAYOUT_VERSION,
                "data_format": "hdf5",
                "jpeg_encoding": False,
                "total_episodes": episodes,
                "total_steps": steps,
                "dataset_size": round(file.stat().st_size / 1e6, 1),
                "observation_space": _space(dataset.observations.shape[1], (-np.inf,), (np.inf,)),
                "action_space": _space(dataset.actions.shape[1], *sides),
                "description": description or f"{dataset.name}, written by DeFlow.",
                **({"author": [author]} if author else {}),
                **({"env_spec": spec} if spec else {}),
            }
            write_json(draft / "data" / "metadata.json", metadata)
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise DeFlowError(f"{target} could not be written ({reason}).") from error
    return target


def minari_target(dataset_id: str, root: Path | None = None) -> Path:
    """The folder that a set of this id would be written to.

    Raises:
        DeFlowError: no id, a set of that id is there already, or h5py is not installed.
    """
    if not ID.fullmatch(dataset_id):
        raise DeFlowError(f"{dataset_id!r} is no id of a Minari set, such as 'cube/play-v0'.")
    target = (root or datasets_folder()) / dataset_id
    require_package("h5py", "files", target)
    if target.exists():
        raise DeFlowError(f"{target} is already there; choose another id, or delete it first.")
    return target


def _require_chains(dataset: Dataset) -> None:
    """Raise where a trajectory's next observations are not the observations that follow."""
    rows, follows = dataset.rows, dataset.next_rows
    same = ~dataset.last[:-1]
    if (same & (follows[:-1] != rows[1:])).any():
        row = int(rows[np.argmax(same & (follows[:-1] != rows[1:]))])
        raise DeFlowError(
            f"{dataset.name}: the next observation of row {row} is not the observation of the row "
            "after, and a Minari episode is one chain; end the trajectory there (timeouts)."
        )


def _episodes(dataset: Dataset, box: Box | None) -> Iterator[Episode]:
    bounds = np.searchsorted(dataset.rows, dataset.episode_ends, side="right")
    first = 0
    for last in bounds:
        if last > first:
            rows, final = dataset.rows[first:last], dataset.next_rows[last - 1]
            actions = dataset.actions[rows]
            terminations = dataset.masks[rows] == 0
            truncations = np.zeros(len(rows), np.bool_)
            truncations[-1] = not terminations[-1]
            yield {
                "observations": dataset.observations[np.append(rows, final)],
                "actions": box.back(actions) if box else actions,
                "rewards": dataset.rewards[rows],
                "terminations": terminations,
                "truncations": truncations,
            }
        first = last


def _write_episodes(dataset: Dataset, box: Box | None, path: Path) -> tuple[int, int]:
    """Write every episode; returns their number and that of their steps."""
    import h5py

    episodes = steps = 0
    with h5py.File(path, "w", track_order=True) as file, progress_bar(transient=True) as bar:
        task = bar.add_task("episodes", total=len(dataset.episode_ends), note="")
        for index, episode in enumerate(_episodes(dataset, box)):
            group = file.create_group(f"episode_{index}")
            group.attrs["id"] = index
            group.attrs["total_steps"] = len(episode["rewards"])
            for name, array in episode.items():
                group.create_dataset(name, data=array, maxshape=(None, *array.shape[1:]))
            episodes, steps = episodes + 1, steps + len(episode["rewards"])
            bar.advance(task)
    return episodes, steps


def _space(width: int, low: tuple[float, ...], high: tuple[float, ...]) -> str:
    """A box as Minari writes it down; a single bound holds for every column."""
    sides = {"low": low, "high": high}
    wide = {side: list(b) * (width if len(b) == 1 else 1) for side, b in sides.items()}
    return json.dumps({"type": "Box", "dtype": "float32", "shape": [width], **wide})


def _env_spec(environment: Environment | None) -> str | None:
    """The environment as Gymnasium writes it down."""
    if environment is None:
        return None
    found = registered(environment.env_id)
    if found is None:
        raise DeFlowError(f"{environment.env_id!r} is not registered with Gymnasium here.")
    spec = copy.deepcopy(found)
    kwargs = dict(environment.kwargs)
    # `gymnasium.make` takes it among the arguments; of an environment's it is none.
    spec.max_episode_steps = kwargs.pop("max_episode_steps", spec.max_episode_steps)
    spec.kwargs.update(kwargs)
    try:
        return str(spec.to_json())
    except (TypeError, ValueError) as error:
        raise DeFlowError(
            f"{environment.env_id} cannot be written down ({error}); register it with an entry "
            "point module:Class and plain arguments, or name no environment."
        ) from error
