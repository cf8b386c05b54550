"""The visual OGBench sets of the published tables: names, loading, and what making them takes.

The same episodes as the sets of states, with a frame of 64 x 64 pixels in the place of each state:
`observations` [N, 64, 64, 3] uint8, beside the same actions, qpos and qvel.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deflow.core.errors import DeFlowError, near
from deflow.core.progress import console
from deflow.data.frames import read_frames
from deflow.data.names import Task
from deflow.data.npz import read_npz
from deflow.data.provenance import validation_file

if TYPE_CHECKING:
    from deflow.data.dataset import Dataset
    from deflow.data.ogbench import Array, Arrays
    from deflow.data.recipes import Recipe

DATASETS = tuple(
    f"visual-{environment}-play-v0"
    for environment in ("cube-single", "cube-double", "scene", "puzzle-3x3", "puzzle-4x4")
)

TASKS = tuple(name.replace("-v0", "-singletask-task1-v0") for name in DATASETS)
"""The five tasks that the papers report."""

_TASK = re.compile(r"(?P<dataset>visual-.+)-singletask(-task1)?-v0")

_TRIAL = 10
"""Frames that are drawn to say how long a set will take."""


# Names ------------------------------------------------------------------------------------------


def parse_visual(name: str) -> Task:
    """Read the name of a visual task; without `task1` it is taken, being the only one.

    Raises:
        DeFlowError: any other; the nearest are offered.
    """
    match = _TASK.fullmatch(name)
    dataset = f"{match['dataset']}-v0" if match else ""
    if dataset not in DATASETS:
        raise _unknown("visual task", name, TASKS)
    full = TASKS[DATASETS.index(dataset)]
    env_id = full.replace("-play-", "-")
    return Task(full, dataset, env_id, defaulted=name != full, visual=True)


def parse_visual_dataset(name: str) -> str:
    """The set that its own name or a task's name stands for."""
    if name in DATASETS:
        return name
    if _TASK.fullmatch(name):
        return parse_visual(name).dataset
    raise _unknown("visual dataset", name, (*DATASETS, *TASKS))


def _unknown(kind: str, name: str, known: tuple[str, ...]) -> DeFlowError:
    hint = near(name, known, f"such a name looks like {known[0]!r}.", alike=0.5)
    return DeFlowError(f"There is no {kind} {name!r} here; {hint}")


# Loading ----------------------------------------------------------------------------------------


def load_training(task: Task, data_dir: Path | None = None, *, download: bool = True) -> Dataset:
    """The training set of a visual task with its rewards, which its qpos tell; see `read_visual`.

    Raises:
        DeFlowError: as `deflow.data.ogbench.load_task`, or the frames would not fit.
    """
    from deflow.data.ogbench import locate_set

    return _load(task, task.name, locate_set(task.dataset, data_dir, download=download))


def load_validation(task: Task, data_dir: Path | None = None, *, download: bool = True) -> Dataset:
    """The validation set, as `load_training`."""
    from deflow.data.ogbench import locate_set

    target = locate_set(task.dataset, data_dir, download=download)
    return _load(task, f"{task.name} (validation)", validation_file(target))


def read_visual(path: Path) -> Arrays:
    """The arrays of a visual set's file, checked; keys as in the file.

    Says what memory the frames take before it is taken; each is kept once, as bytes.

    Raises:
        DeFlowError: as `deflow.data.ogbench.read_set`, or the frames would not fit.
    """
    from deflow.data.ogbench import KIND, LAYOUT, checked_set

    arrays = read_npz(path, required=LAYOUT, skip=("observations",), kind=KIND)
    return checked_set(path, {"observations": read_frames(path), **arrays})


def relabel_visual(task: Task, sets: dict[str, Arrays]) -> list[tuple[Array, Array]]:
    """As `deflow.data.ogbench.relabel`, by the environment of states, which has the same goals and
    need not draw."""
    from deflow.data.ogbench import relabel

    return relabel(replace(task, env_id=task.env_id.removeprefix("visual-")), sets)


def _load(task: Task, name: str, path: Path) -> Dataset:
    from deflow.data.ogbench import to_dataset

    arrays = read_visual(path)
    (labels,) = relabel_visual(task, {path.stem: arrays})
    return to_dataset(name, arrays, *labels)


# Making -----------------------------------------------------------------------------------------


def draw_on_egl() -> None:
    """Have MuJoCo draw without a display in this process, where nothing else is chosen; to be
    called before it is imported. Mesa keeps to one thread, since the workers share the cores."""
    if sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", "egl")
    os.environ.setdefault("LP_NUM_THREADS", "1")


def expected_duration(recipe: Recipe, episodes: int, workers: int) -> str:
    """How long `episodes` will take and how large they will be, from the first frames.

    They are drawn in a process of their own, since MuJoCo chooses its way of drawing once.

    Raises:
        DeFlowError: nothing can be drawn here.
    """
    console.print(f"{recipe.dataset}: drawing the first {_TRIAL} frames, to say how long it takes.")
    words = [sys.executable, "-m", "deflow.data.visual", recipe.environment]
    trial = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if trial.returncode:
        last = (trial.stderr.strip().splitlines() or ["no word"])[-1]
        raise DeFlowError(
            f"{recipe.dataset} cannot be drawn on this machine ({last}): install EGL with Mesa "
            "(Debian: libegl1 and libgl1-mesa-dri), or set MUJOCO_GL to what it has."
        )
    measured = json.loads(trial.stdout.splitlines()[-1])
    count = episodes * recipe.steps
    at_once = min(workers, episodes, os.cpu_count() or 1)
    seconds = count * measured["seconds"] / at_once
    return (
        f"{episodes:,} episodes of {recipe.steps:,} frames, {1e3 * measured['seconds']:.0f} ms "
        f"each, {at_once} at a time: about {_spoken(seconds)}, and "
        f"{count * measured['bytes'] / 1e6:,.1f} MB before they are packed."
    )


def _spoken(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _try(environment: str) -> dict[str, Any]:
    """Seconds and bytes of a frame, its step included."""
    draw_on_egl()
    from deflow.data.simulator import make_env

    env = make_env(f"{environment}-v0", mode="data_collection")
    seen, _ = env.reset(seed=0)
    began = time.perf_counter()
    for _ in range(_TRIAL):
        env.step(np.zeros(5, np.float32))
    return {"seconds": (time.perf_counter() - began) / _TRIAL, "bytes": int(seen.nbytes)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_try(sys.argv[1])) + "\n")
