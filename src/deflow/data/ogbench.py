"""OGBench's single-task problems as datasets: found, fetched, checked, rewarded."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np

from deflow.core.errors import DeFlowError
from deflow.data import checks
from deflow.data.dataset import Dataset
from deflow.data.download import DownloadError, download_set
from deflow.data.folder import data_folder, find_set
from deflow.data.names import Task, is_visual
from deflow.data.npz import read_npz
from deflow.data.provenance import check_files, validation_file
from deflow.data.recipes import recipe_for
from deflow.data.simulator import ignore_noise, make_env

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

LAYOUT = ("observations", "actions", "terminals", "qpos")
"""What a file in OGBench's layout holds at least; qpos is what rewards are computed from."""

KIND = "set in OGBench's layout"
"""What a file is that holds it, for messages."""


def load_task(
    task: Task, data_dir: Path | None = None, *, download: bool = True
) -> tuple[Dataset, Dataset]:
    """The training and the validation set of a task, with its rewards.

    As OGBench does it: the last row of each trajectory is only a next observation; a row's reward
    is minus the number of subgoals not met, its mask 0 where all are met. Success is scored on the
    state *before* the step (`success_timing='pre'`, as OGBench's single-task environments do since
    1.2.0; older releases scored the state after it).

    Looks in the data folder, then in OGBench's own, then downloads the official files.

    Raises:
        DeFlowError: the set is neither here nor to be had, or its files are damaged, too large for
            the memory, lack an array, hold numbers that are not finite, or do not fit the task's
            environment.
    """
    if task.visual:
        from deflow.data.visual import load_training, load_validation

        return (
            load_training(task, data_dir, download=download),
            load_validation(task, data_dir, download=download),
        )
    target = locate_set(task.dataset, data_dir, download=download)
    train = read_set(target)
    validation = read_set(validation_file(target))
    train_rewards, validation_rewards = relabel(task, {"train": train, "validation": validation})
    return (
        to_dataset(task.name, train, *train_rewards),
        to_dataset(f"{task.name} (validation)", validation, *validation_rewards),
    )


def locate_set(dataset: str, data_dir: Path | None = None, *, download: bool = True) -> Path:
    """The training file of a set (the validation file lies beside it), fetched where need be."""
    folder = data_folder(data_dir)
    target = find_set(dataset, folder)
    if target is None and download:
        try:
            target = download_set(dataset, folder)
        except DownloadError as error:
            raise DeFlowError(
                f"{dataset} is not in {folder}, and {error}; {_remedy(dataset, folder)}."
            ) from error
    if target is None:
        raise DeFlowError(f"{dataset} is not in {folder}; {_remedy(dataset, folder)}.")
    check_files(target)
    return target


def _remedy(dataset: str, folder: Path) -> str:
    """How the user comes by the set without a network."""
    try:
        recipe = recipe_for(dataset)
    except DeFlowError:
        return f"put the official {dataset}.npz and {dataset}-val.npz there by hand"
    expert = "--policy RUN (an ant's expert, see docs/ant.md) " if recipe.needs_expert else ""
    return (
        f"make it here with: deflow data generate {dataset} --episodes 300 {expert}"
        f"--workers {os.cpu_count() or 1} --data-dir {folder}"
    )


def read_set(path: Path) -> Arrays:
    """The arrays of a file in OGBench's layout, checked; keys as in the file.

    Raises:
        DeFlowError: see `load_task`.
    """
    arrays = read_npz(path, required=LAYOUT, kind=KIND)
    arrays["observations"] = checks.matrix(arrays["observations"], f"{path}: observations")
    return checked_set(path, arrays)


def checked_set(path: Path, arrays: Arrays) -> Arrays:
    """The arrays, where they agree with each other; observations are checked already."""
    count = len(arrays["observations"])
    for key in ("qpos", "qvel", "button_states"):
        if key in arrays:
            matrix = checks.matrix(arrays[key], f"{path}: {key}")
            arrays[key] = checks.same_rows(matrix, f"{path}: {key}", count)
    arrays["actions"] = checks.actions(arrays["actions"], f"{path}: actions", count)
    arrays["terminals"] = checks.flags(arrays["terminals"], f"{path}: terminals", count)
    if not arrays["terminals"][-1] or arrays["terminals"].all():
        raise DeFlowError(
            f"{path} is not in OGBench's layout: terminals must be true on the last row of each "
            "trajectory, and a trajectory must have two rows and more."
        )
    return arrays


def relabel(task: Task, sets: dict[str, Arrays]) -> list[tuple[Array, Array]]:
    """Rewards and masks [N] of each set under the task, by OGBench's own function.

    Raises:
        DeFlowError: a set's widths do not fit the task's environment.
    """
    from ogbench.relabel_utils import relabel_dataset

    env = make_env(task.env_id)
    state = np.random.get_state()  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            ignore_noise()
            env.reset(seed=0)
            labels = []
            for split, arrays in sets.items():
                _check_widths(task, env, split, arrays)
                labelled = dict(arrays)
                relabel_dataset(task.env_id, env, labelled)
                labels.append((labelled["rewards"], labelled["masks"]))
            return labels
    finally:
        np.random.set_state(state)  # noqa: NPY002  (OGBench's resets draw from the global state.)
        env.close()


def _check_widths(task: Task, env: Any, split: str, arrays: Arrays) -> None:
    world = cast(Any, env.unwrapped)
    widths = {"actions": env.action_space.shape[0], "qpos": world.model.nq}
    if not is_visual(task.dataset):
        widths = {"observations": env.observation_space.shape[0], **widths}
    buttons = getattr(world, "_num_buttons", 0)
    if buttons:
        widths["button_states"] = buttons
    for key, width in widths.items():
        if key not in arrays:
            raise DeFlowError(
                f"The {split} file of {task.dataset} lacks {key}, from which the rewards of "
                f"{task.name} are computed; fetch or generate the set again."
            )
        if arrays[key].ndim != 2 or arrays[key].shape[1] != width:
            raise DeFlowError(
                f"The {split} file of {task.dataset} does not fit {task.env_id}: {key} have shape "
                f"{arrays[key].shape}, and must have {width} columns."
            )


def to_dataset(name: str, arrays: Arrays, rewards: Array, masks: Array) -> Dataset:
    """OGBench's layout as a `Dataset`: the last row of a trajectory is no transition."""
    last = arrays["terminals"]
    rows = np.flatnonzero(~last).astype(np.int32)
    return Dataset(
        name=name,
        observations=arrays["observations"],
        actions=arrays["actions"],
        rewards=rewards.astype(np.float32),
        masks=masks.astype(np.float32),
        rows=rows,
        next_rows=rows + np.int32(1),
        episode_ends=np.flatnonzero(last).astype(np.int32),
    )
