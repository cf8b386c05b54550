"""What a dataset holds, in numbers: `deflow data inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from deflow.core.errors import DeFlowError
from deflow.data.d4rl import TASKS, load_d4rl, locate_d4rl
from deflow.data.dataset import Dataset
from deflow.data.folder import data_folder
from deflow.data.names import is_visual, parse_dataset, parse_task, tasks
from deflow.data.ogbench import LAYOUT, locate_set, read_set, relabel, to_dataset
from deflow.data.own import Given, choose_box, is_own, read_raw, refuse_with_a_set
from deflow.data.peek import column_names, holds_frames, in_ogbench_layout
from deflow.data.provenance import check_files, provenance_file, read_json, validation_file
from deflow.data.ranges import ranges, spread_of
from deflow.data.readers.raw import RawData
from deflow.data.states import unlabelled
from deflow.data.suspicious import finite_part, suspicious
from deflow.data.transforms import Box, Transforms
from deflow.data.visual import TASKS as VISUAL_TASKS
from deflow.data.visual import read_visual, relabel_visual

_DISTINCT = 20


def describe(dataset: Dataset, *, solved: bool = False) -> dict[str, Any]:
    """Shapes, ranges, returns, terminations, episode lengths and memory, ready for JSON.

    Returns of episodes are undiscounted sums over their transitions. `rows` are those of the file:
    one from which no next observation is known is no transition. `termination_rows` are transitions
    whose mask is 0; they are `success_rows` where `solved`, as in OGBench's sets and D4RL's ant
    mazes, whose episodes terminate at the goal and nowhere else.
    """
    rows = dataset.rows
    episode = dataset.episodes
    lengths = np.bincount(episode, minlength=len(dataset.episode_ends))
    returns = np.bincount(episode, dataset.rewards[rows], minlength=len(dataset.episode_ends))
    values, counts = np.unique(dataset.rewards[rows], return_counts=True)
    over = dataset.masks[rows] == 0
    word = "success" if solved else "termination"
    only_next = np.unique(dataset.next_rows[dataset.next_rows > dataset.episode_ends[-1]])
    return {
        "name": dataset.name,
        "rows": len(dataset.observations) - len(only_next),
        "transitions": dataset.transitions,
        "episodes": len(dataset.episode_ends),
        "arrays": {
            "observations": ranges(dataset.observations),
            "actions": ranges(dataset.actions[rows]),
        },
        "rewards": {
            **spread_of(dataset.rewards[rows]),
            "distinct": len(values),
            "values": dict(zip(map(str, values.tolist()), counts.tolist(), strict=True))
            if len(values) <= _DISTINCT
            else None,
        },
        "returns": spread_of(returns),
        f"{word}_rows": int(over.sum()),
        f"{word}_episodes": len(np.unique(episode[over])),
        "episode_lengths": spread_of(lengths),
        "bytes": dataset.nbytes,
        "fingerprint": dataset.fingerprint(),
    }


def inspect(
    name: str,
    data_dir: Path | None = None,
    *,
    columns: Given = None,
    bounds: Box | None = None,
    verify: bool = False,
) -> dict[str, Any]:
    """Describe a set by its name, one of its tasks' names, or your own file, folder or Minari id.

    Nothing is downloaded. A dataset's name describes it without rewards and counts the rows that
    solve each of its tasks; a task's name describes it with that task's rewards; a file is read as
    your own arrays or, where an .npz file holds no rewards, as OGBench's layout. `suspicious` in
    the report holds what looks wrong, a sentence each.

    Args:
        columns: which column of your own file is what; see `Columns`.
        bounds: of the actions in your own file, as `load_own` takes them.
        verify: compare the files' checksums with those kept when they were made.

    Raises:
        DeFlowError: an unknown name, a file that is absent or damaged, options for your own file
            beside a set's name, or nothing was kept to verify it with.
    """
    if is_own(name):
        if verify:
            _verify_own(name)
        return {"file": name, "verified": verify, **_describe_own(name, columns, bounds)}
    refuse_with_a_set(name, columns=columns, action_bounds=bounds)
    return (_describe_d4rl if name in TASKS else _describe_set)(name, data_dir, verify)


def _describe_d4rl(name: str, data_dir: Path | None, verify: bool) -> dict[str, Any]:
    folder = data_folder(data_dir)
    target = locate_d4rl(TASKS[name], folder, download=False)
    _verify(target, verify)
    dataset = load_d4rl(TASKS[name], folder, download=False)
    return {
        "file": str(target),
        "verified": verify,
        "train": describe(dataset, solved=TASKS[name].domain == "antmaze"),
        "suspicious": suspicious(dataset),
    }


def _describe_set(name: str, data_dir: Path | None, verify: bool) -> dict[str, Any]:
    """One of OGBench's sets; with rewards, where `name` is that of a task."""
    dataset = parse_dataset(name)
    target = locate_set(dataset, data_dir, download=False)
    _verify(target, verify)
    read = read_visual if is_visual(dataset) else read_set
    label = relabel_visual if is_visual(dataset) else relabel
    sets = {"train": read(target), "validation": read(validation_file(target))}
    about: dict[str, Any] = {"dataset": dataset, "file": str(target), "verified": verify}
    rewarded = "singletask" in name
    if rewarded:
        task = parse_task(name)
        about |= {"task": task.name, "default_task": task.defaulted}
        wholes = {
            split: to_dataset(f"{task.name}, {split}", arrays, *labels)
            for (split, arrays), labels in zip(sets.items(), label(task, sets), strict=True)
        }
        splits = {split: describe(whole, solved=True) for split, whole in wholes.items()}
    else:
        wholes = {
            split: unlabelled(f"{dataset}, {split}", arrays) for split, arrays in sets.items()
        }
        splits = {split: _without_rewards(whole) for split, whole in wholes.items()}
        own = [t for t in map(parse_task, (*tasks(), *VISUAL_TASKS)) if t.dataset == dataset]
        about["success_rows_of_tasks"] = {
            task.name: {
                split: int((masks[~arrays["terminals"]] == 0).sum())
                for (split, arrays), (_, masks) in zip(sets.items(), label(task, sets), strict=True)
            }
            for task in own
        }
    found = [
        f"{split}: {finding}"
        for split, whole in wholes.items()
        for finding in suspicious(whole, rewarded=rewarded)
    ]
    return {**about, **splits, "suspicious": found}


def _verify(target: Path, full: bool) -> None:
    """Compare a set's files with what was kept of them."""
    if not check_files(target, full=full) and full:
        raise DeFlowError(f"No checksum was kept of {target}, so there is nothing to compare with.")


def _verify_own(name: str) -> None:
    """Compare a file with what was kept of it when it was made here, if it was."""
    path = Path(name).expanduser()
    kept = read_json(provenance_file(path)).get("files") if path.is_file() else None
    if not isinstance(kept, dict) or path.name not in kept:
        raise DeFlowError(
            f"--verify compares with the checksum that was kept when a set was made or fetched "
            f"here, and of {name} none was kept; leave it."
        )
    _verify(path, full=True)


def _describe_own(name: str, columns: Given, bounds: Box | None) -> dict[str, Any]:
    path = Path(name).expanduser()
    if columns is None and bounds is None and in_ogbench_layout(path):
        return _describe_ogbench(path)
    raw = read_raw(name, columns)
    unmarked = _unmarked(raw)
    raw, findings = finite_part(raw)
    box = choose_box(raw, bounds, quiet=True)
    if box is not None and bounds is None and raw.bounds is None:
        findings.append(
            f"actions lie between {min(box.low):g} and {max(box.high):g}, outside [-1, 1], and the "
            "file declares no bounds: the numbers here are of actions scaled by their range; give "
            "--action-bounds LOW HIGH"
        )
    dataset = Transforms(box=box).apply(raw).dataset()
    return {"train": describe(dataset), "suspicious": unmarked + findings + suspicious(dataset)}


def _unmarked(raw: RawData) -> list[str]:
    """Said where nothing tells one trajectory from the next."""
    silent = raw.timeouts is None and raw.lengths is None
    if not silent or len(raw.observations) < 2 or raw.ends()[:-1].any():
        return []
    return [
        "nothing marks where trajectories end: the whole file is taken as one; name a column with "
        "episode=..., timeouts=... or lengths=..."
    ]


def _describe_ogbench(path: Path) -> dict[str, Any]:
    names = column_names(path)
    if not set(LAYOUT) <= set(names):
        raise DeFlowError(
            f"{path} holds {', '.join(names)}: neither rewards, as your own arrays would (say "
            "--columns rewards=zero where there are none), nor qpos, as a set in OGBench's layout "
            "would."
        )
    whole = read_visual(path) if holds_frames(path) else read_set(path)
    dataset = unlabelled(path.name, whole)
    return {
        "train": _without_rewards(dataset),
        "suspicious": suspicious(dataset, rewarded=False),
    }


def _without_rewards(dataset: Dataset) -> dict[str, Any]:
    absent = ("rewards", "returns", "termination_rows", "termination_episodes", "fingerprint")
    return {key: value for key, value in describe(dataset).items() if key not in absent}
