"""D4RL's sets as datasets: found, fetched, checked, prepared as published."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deflow.core.errors import DeFlowError, near
from deflow.core.files import write_json
from deflow.core.progress import progress_bar
from deflow.data import checks
from deflow.data.dataset import Dataset
from deflow.data.download import DownloadError, fetch
from deflow.data.folder import ensure_writable
from deflow.data.hdf5 import read_hdf5
from deflow.data.provenance import check_files, file_entry, provenance_file
from deflow.data.readers.guards import require_package

OFFICIAL = "https://rail.eecs.berkeley.edu/datasets/offline_rl"
"""Where D4RL's public documentation says that the files are."""

D4RL_FOLDER = Path("~/.d4rl/datasets")
"""Where D4RL itself keeps its files; looked into, never written."""

Domain = Literal["antmaze", "adroit", "locomotion", "maze2d"]

REQUIRED = ("observations", "actions", "rewards", "terminals")


@dataclass(frozen=True)
class D4RLTask:
    """One of D4RL's tasks: a dataset and the environment that goes with it.

    Attributes:
        name: as D4RL registers it, `antmaze-large-play-v2`; also what `make_d4rl` takes.
        file: the official file with its folder, `maze2d/maze2d-umaze-sparse-v1.hdf5`.
        domain: which preprocessing is its own.
        reference: returns that count as 0 and as 100 (of a random policy and of an expert).
        horizon: steps after which the environment cuts an episode.
    """

    name: str
    file: str
    domain: Domain
    reference: tuple[float, float]
    horizon: int


def _antmaze() -> Iterator[D4RLTask]:
    mazes = {"umaze": "u-maze", "medium": "big-maze", "large": "hardest-maze"}
    kinds = {
        "umaze": (False, False),
        "umaze-diverse": (True, True),
        **{f"{size}-play": (True, False) for size in ("medium", "large")},
        **{f"{size}-diverse": (True, True) for size in ("medium", "large")},
    }
    for kind, (starts, goals) in kinds.items():
        size = kind.split("-")[0]
        file = f"Ant_maze_{mazes[size]}_noisy_multistart_{starts}_multigoal_{goals}_sparse_fixed"
        horizon = 700 if size == "umaze" else 1000
        where = f"ant_maze_v2/{file}.hdf5"
        yield D4RLTask(f"antmaze-{kind}-v2", where, "antmaze", (0.0, 1.0), horizon)


def _adroit() -> Iterator[D4RLTask]:
    references = {
        "pen": (96.262799, 3076.8331017826877),
        "door": (-56.512833, 2880.5693087298737),
        "hammer": (-274.856578, 12794.134825156867),
        "relocate": (-6.425911, 4233.877797728884),
    }
    for task, kind in product(references, ("human", "cloned", "expert")):
        name = f"{task}-{kind}-v1"
        horizon = 100 if task == "pen" else 200
        yield D4RLTask(name, f"hand_dapg_v1/{name}.hdf5", "adroit", references[task], horizon)


def _locomotion() -> Iterator[D4RLTask]:
    references = {
        "halfcheetah": (-280.178953, 12135.0),
        "hopper": (-20.272305, 3234.3),
        "walker2d": (1.629008, 4592.3),
    }
    for body, kind in product(references, ("medium", "medium-replay", "medium-expert")):
        file = f"gym_mujoco_v2/{body}_{kind.replace('-', '_')}-v2.hdf5"
        yield D4RLTask(f"{body}-{kind}-v2", file, "locomotion", references[body], 1000)


def _maze2d() -> Iterator[D4RLTask]:
    mazes = {
        "umaze": ((23.85, 161.86), 300),
        "medium": ((13.13, 277.39), 600),
        "large": ((6.7, 273.99), 800),
    }
    for size, (reference, horizon) in mazes.items():
        file = f"maze2d/maze2d-{size}-sparse-v1.hdf5"
        yield D4RLTask(f"maze2d-{size}-v1", file, "maze2d", reference, horizon)


TASKS: dict[str, D4RLTask] = {
    task.name: task for tasks in (_antmaze, _adroit, _locomotion, _maze2d) for task in tasks()
}
"""The thirty tasks by name. Files, references and horizons are those of D4RL's registry."""


def parse_d4rl(name: str) -> D4RLTask:
    """The task of this name.

    Raises:
        DeFlowError: there is none such; the nearest names are offered.
    """
    if name not in TASKS:
        hint = near(name, TASKS, "a D4RL name looks like 'antmaze-large-play-v2'.", alike=0.5)
        raise DeFlowError(f"There is no D4RL task {name!r}; {hint}")
    return TASKS[name]


def normalized_score(task_name: str, return_: float) -> float:
    """An episode's undiscounted return in D4RL's points: 0 is random, 100 an expert."""
    low, high = parse_d4rl(task_name).reference
    return (return_ - low) / (high - low) * 100.0


def load_d4rl(task: D4RLTask, data_dir: Path, download: bool = True) -> Dataset:
    """A task's dataset, prepared as the published methods do.

    The view is D4RL's `qlearning_dataset`: the next observation is the next row, and a row where
    time ran out is no transition. Masks are 0 at terminals. Ant maze: rewards minus 1, and a
    trajectory ends only where the next row does not go on from it. The others: rewards as they are;
    a trajectory also ends at a terminal. Actions are clipped to +-(1 - 1e-5).

    Looks in the data folder for `<name>.hdf5` or the official file (flat or in its folder), then
    where D4RL keeps its own, then downloads.

    Raises:
        DeFlowError: the set is neither here nor to be had, or its file is damaged, lacks an array,
            or holds numbers that are not finite.
    """
    path = locate_d4rl(task, data_dir, download=download)
    arrays = read_hdf5(path, required=REQUIRED, wanted=(*REQUIRED, "timeouts"))
    return prepare(task, arrays, str(path))


def locate_d4rl(task: D4RLTask, data_dir: Path, download: bool = True) -> Path:
    """The file of a set, fetched where need be; see `load_d4rl`."""
    official = Path(task.file)
    target = data_dir / f"{task.name}.hdf5"
    require_package("h5py", "d4rl", target)
    places = (
        target,
        data_dir / official.name,
        data_dir / official,
        D4RL_FOLDER.expanduser() / official.name,
    )
    found = next((place for place in places if place.is_file()), None)
    if found is None and download:
        return _download(task, target)
    if found is None:
        raise DeFlowError(f"{task.name} is not in {data_dir}; {_remedy(task, data_dir)}.")
    check_files(found)
    return found


def _remedy(task: D4RLTask, data_dir: Path) -> str:
    return f"fetch {OFFICIAL}/{task.file} by other means and put it into {data_dir}"


def _download(task: D4RLTask, target: Path) -> Path:
    url = f"{OFFICIAL}/{task.file}"
    ensure_writable(target.parent)
    try:
        with progress_bar(transient=True) as bar:
            fetch(url, target, bar)
        entry = {target.name: file_entry(target)}
        write_json(provenance_file(target), {"made_by": f"download from {url}", "files": entry})
    except DownloadError as error:
        raise DeFlowError(
            f"{task.name} is not in {target.parent}, and {error}; {_remedy(task, target.parent)}."
        ) from error
    except OSError as error:
        raise DeFlowError(
            f"{target.parent} could not be written ({error.strerror or error})."
        ) from error
    return target


def prepare(task: D4RLTask, arrays: dict[str, NDArray[Any]], where: str) -> Dataset:
    """The dataset of the arrays that D4RL's file holds; see `load_d4rl`."""
    obs = checks.matrix(arrays["observations"], f"{where}: observations")
    count = len(obs)
    act = checks.same_rows(
        checks.matrix(arrays["actions"], f"{where}: actions"), f"{where}: actions", count
    )
    limit = 1.0 - checks.ROUNDING
    rewards = checks.finite(
        checks.column(arrays["rewards"], f"{where}: rewards", count), f"{where}: rewards"
    )
    terminal = checks.flags(arrays["terminals"], f"{where}: terminals", count)
    if "timeouts" in arrays:
        timeout = checks.flags(arrays["timeouts"], f"{where}: timeouts", count)
    else:
        timeout = _cut_by_horizon(terminal, task.horizon)
    if task.domain == "antmaze":
        rewards = rewards - np.float32(1)

    rows = np.flatnonzero(~timeout[:-1])
    if not len(rows):
        raise DeFlowError(f"{where} holds no transition: time runs out in each of its rows.")
    following = rows + 1
    # A next observation after a terminal is another trajectory's; it gets a row of its own, so that
    # nothing that looks back from a trajectory's first row finds the one before.
    apart = terminal[rows] if task.domain != "antmaze" else np.zeros(len(rows), np.bool_)
    extra = obs[following[apart]]
    following[apart] = count + np.arange(len(extra))

    last = timeout | (terminal & (task.domain != "antmaze"))
    last[-1] = True
    ends = np.flatnonzero(last)
    ends = ends[np.unique(np.searchsorted(ends, rows))]
    return Dataset(
        name=task.name,
        observations=np.concatenate([obs, extra]),
        actions=_padded(np.clip(act, -limit, limit), len(extra), 0.0),
        rewards=_padded(rewards, len(extra), 0.0),
        masks=_padded(1.0 - terminal, len(extra), 1.0),
        rows=rows.astype(np.int32),
        next_rows=following.astype(np.int32),
        episode_ends=ends.astype(np.int32),
    )


def _cut_by_horizon(terminal: NDArray[np.bool_], horizon: int) -> NDArray[np.bool_]:
    """Where time ran out, for files that do not say: `horizon` rows after a trajectory's start."""
    cut = np.zeros(len(terminal), np.bool_)
    start = 0
    for end in [*np.flatnonzero(terminal), len(terminal)]:
        cut[start + horizon - 1 : end + 1 : horizon] = True
        start = end + 1
    return cut


def _padded(array: NDArray[Any], rows: int, value: float) -> NDArray[np.float32]:
    extra = np.full((rows, *array.shape[1:]), value)
    return np.concatenate([array, extra]).astype(np.float32)
