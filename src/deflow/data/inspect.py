"""What a dataset holds, in numbers: `deflow data inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from deflow.core.errors import DeFlowError
from deflow.data.d4rl import TASKS, load_d4rl, locate_d4rl
from deflow.data.dataset import Dataset
from deflow.data.folder import data_folder
from deflow.data.names import parse_dataset, parse_task, tasks
from deflow.data.npz import read_npz
from deflow.data.ogbench import LAYOUT, Array, locate_set, read_set, relabel, to_dataset
from deflow.data.own import Given, choose_box, is_own, read_raw
from deflow.data.provenance import check_files, validation_file
from deflow.data.readers.npz import judge_sizes
from deflow.data.suspicious import finite_part, suspicious
from deflow.data.transforms import Transforms

_DISTINCT = 20


def describe(dataset: Dataset) -> dict[str, Any]:
    """Shapes, ranges, returns, success rows, episode lengths and memory, ready for JSON.

    Returns of episodes are undiscounted sums over their transitions; success rows are transitions
    whose mask is 0.
    """
    rows = dataset.rows
    episode = np.searchsorted(dataset.episode_ends, rows)
    lengths = np.bincount(episode, minlength=len(dataset.episode_ends))
    returns = np.bincount(episode, dataset.rewards[rows], minlength=len(dataset.episode_ends))
    values, counts = np.unique(dataset.rewards[rows], return_counts=True)
    solved = int((dataset.masks[rows] == 0).sum())
    return {
        "name": dataset.name,
        "transitions": dataset.transitions,
        "episodes": len(dataset.episode_ends),
        "arrays": {
            "observations": _ranges(dataset.observations),
            "actions": _ranges(dataset.actions[rows]),
        },
        "rewards": {
            **_spread(dataset.rewards[rows]),
            "distinct": len(values),
            "values": dict(zip(map(str, values.tolist()), counts.tolist(), strict=True))
            if len(values) <= _DISTINCT
            else None,
        },
        "returns": _spread(returns),
        "success_rows": solved,
        "success_episodes": len(np.unique(episode[dataset.masks[rows] == 0])),
        "episode_lengths": _spread(lengths),
        "bytes": dataset.nbytes,
        "fingerprint": dataset.fingerprint(),
    }


def inspect(
    name: str, data_dir: Path | None = None, *, columns: Given = None, verify: bool = False
) -> dict[str, Any]:
    """Describe a set by its name, one of its tasks' names, or your own file, folder or Minari id.

    Nothing is downloaded. A dataset's name describes it without rewards and counts the rows that
    solve each of its tasks; a task's name describes it with that task's rewards; a file is read as
    your own arrays or, where an .npz file holds no rewards, as OGBench's layout. `suspicious` in
    the report holds what looks wrong, a sentence each.

    Args:
        columns: which column of your own file is what; see `Columns`.
        verify: compare the files' checksums with those kept when they were made.

    Raises:
        DeFlowError: an unknown name, or a file that is absent or damaged.
    """
    if is_own(name):
        return {"file": name, **_describe_own(name, columns)}
    if name in TASKS:
        folder = data_folder(data_dir)
        task_set = load_d4rl(TASKS[name], folder, download=False)
        found = {"file": str(locate_d4rl(TASKS[name], folder, download=False))}
        return {**found, "train": describe(task_set), "suspicious": suspicious(task_set)}
    dataset = parse_dataset(name)
    target = locate_set(dataset, data_dir, download=False)
    kept = check_files(target, full=verify)
    if verify and not kept:
        raise DeFlowError(f"No checksum was kept of {target}, so there is nothing to compare with.")
    sets = {"train": read_set(target), "validation": read_set(validation_file(target))}
    findings: list[str] = []
    report: dict[str, Any] = {"dataset": dataset, "file": str(target), "verified": verify}
    report["suspicious"] = findings
    if "singletask" in name:
        task = parse_task(name)
        report |= {"task": task.name, "default_task": task.defaulted}
        labels = relabel(task, sets)
        for (split, arrays), label in zip(sets.items(), labels, strict=True):
            whole = to_dataset(f"{task.name}, {split}", arrays, *label)
            report[split] = describe(whole)
            findings += [f"{split}: {finding}" for finding in suspicious(whole)]
        return report
    for split, arrays in sets.items():
        whole = to_dataset(f"{dataset}, {split}", arrays, *_zeros(arrays))
        report[split] = _without_rewards(whole)
        findings += [f"{split}: {finding}" for finding in suspicious(whole, rewarded=False)]
    own = [task for task in map(parse_task, tasks()) if task.dataset == dataset]
    report["success_rows_of_tasks"] = {
        task.name: {
            split: int((masks[~arrays["terminals"]] == 0).sum())
            for (split, arrays), (_, masks) in zip(sets.items(), relabel(task, sets), strict=True)
        }
        for task in own
    }
    return report


def _describe_own(name: str, columns: Given) -> dict[str, Any]:
    path = Path(name).expanduser()
    if path.suffix == ".npz" and columns is None and path.is_file():
        judge_sizes(path)
        arrays = read_npz(path)
        if "rewards" not in arrays and {"observations", "actions", "terminals"} <= set(arrays):
            return _describe_ogbench(path, arrays)
    raw = read_raw(name, columns)
    raw, findings = finite_part(raw)
    box = choose_box(raw, quiet=True)
    if box is not None and raw.bounds is None:
        findings.append(
            f"actions lie between {min(box.low):g} and {max(box.high):g}, outside [-1, 1], and the "
            "file declares no bounds: the numbers here are of actions scaled by their range"
        )
    dataset = Transforms(box=box).apply(raw).dataset()
    return {"train": describe(dataset), "suspicious": findings + suspicious(dataset)}


def _describe_ogbench(path: Path, arrays: dict[str, Array]) -> dict[str, Any]:
    if not set(LAYOUT) <= set(arrays):
        raise DeFlowError(
            f"{path} holds {', '.join(arrays)}: neither rewards, as your own arrays would, nor "
            "qpos, as a set in OGBench's layout would."
        )
    whole = read_set(path)
    dataset = to_dataset(path.name, whole, *_zeros(whole))
    return {
        "train": _without_rewards(dataset),
        "suspicious": suspicious(dataset, rewarded=False),
    }


def _zeros(arrays: dict[str, Array]) -> tuple[Array, Array]:
    count = len(arrays["observations"])
    return np.zeros(count, np.float32), np.ones(count, np.float32)


def _without_rewards(dataset: Dataset) -> dict[str, Any]:
    absent = ("rewards", "returns", "success_rows", "success_episodes", "fingerprint")
    return {key: value for key, value in describe(dataset).items() if key not in absent}


def _ranges(array: Array) -> dict[str, Any]:
    """Shape and spread of a matrix, and of each of its columns."""
    low, high = array.min(axis=0), array.max(axis=0)
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "min": float(low.min()),
        "max": float(high.max()),
        "mean": float(array.mean(dtype=np.float64)),
        "std": float(array.std(dtype=np.float64)),
        "column_min": low.tolist(),
        "column_max": high.tolist(),
    }


def _spread(values: Array) -> dict[str, float]:
    return {
        "min": float(values.min()),
        "median": float(np.median(values)),
        "mean": float(values.mean(dtype=np.float64)),
        "max": float(values.max()),
    }
