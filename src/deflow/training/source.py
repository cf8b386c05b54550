"""What a run learns from and is judged in: a benchmark's task by its name, or the user's own."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from deflow.core.errors import DeFlowError
from deflow.data.dataset import Dataset
from deflow.data.own import Own
from deflow.data.transforms import UNCHANGED, Transforms
from deflow.envs.make import EnvSpec

Data = Dataset | Own | None
"""What stands in for a task's own data; None takes those."""
Again = Data | str | Path
"""The data of a run that goes on; a file of the user's own is read as the run read it."""

D4RL_ENTRY = "deflow.envs.d4rl:make_d4rl"


@dataclass(frozen=True)
class Source:
    """A benchmark's task.

    Attributes:
        name: the task's full name.
        env: where a policy is judged.
        frames: whether observations are frames.
        load: the data, found in the folder that it is given, or fetched.
        transforms: how the data's rewards came from the environment's.
    """

    name: str
    env: EnvSpec
    frames: bool
    load: Callable[[Path | None], Dataset]
    transforms: Transforms = UNCHANGED


def source(name: str) -> Source:
    """The source of a task of OGBench or D4RL.

    Raises:
        DeFlowError: there is none of that name; the nearest are offered.
    """
    from deflow.data.d4rl import TASKS, load_d4rl, parse_d4rl
    from deflow.data.folder import data_folder

    if name not in TASKS and not difflib.get_close_matches(name, TASKS, n=1, cutoff=0.85):
        return _ogbench(name)
    task = parse_d4rl(name)
    load = lambda data_dir: load_d4rl(task, data_folder(data_dir))  # noqa: E731
    env = EnvSpec(entry=D4RL_ENTRY, kwargs=(("name", task.name),))
    shift = Transforms(reward_shift=-1.0) if task.domain == "antmaze" else UNCHANGED
    return Source(task.name, env, False, load, shift)


def world(name: str) -> EnvSpec:
    """The environment of a task, or the one of that id or `module:make`, for learning without
    data."""
    return source(name).env if _is_task(name) else EnvSpec.parse(name)


def rewards_of(name: str) -> Transforms:
    """How a task's rewards are learnt, with data or without."""
    return source(name).transforms if _is_task(name) else UNCHANGED


def _is_task(name: str) -> bool:
    from deflow.data.d4rl import TASKS

    return name in TASKS or "-singletask" in name


def _ogbench(name: str) -> Source:
    from deflow.data.names import parse_task
    from deflow.data.ogbench import load_task
    from deflow.data.visual import load_training

    task = parse_task(name)
    if task.visual:
        return Source(task.name, EnvSpec(task.env_id), True, partial(load_training, task))
    states = lambda data_dir: load_task(task, data_dir)[0]  # noqa: E731
    return Source(task.name, EnvSpec(task.env_id), False, states)


def as_own(data: Dataset | Own) -> Own:
    """The user's own data, with how they came to be; raises `DeFlowError` at anything else."""
    if isinstance(data, Own):
        return data
    if not isinstance(data, Dataset):
        raise DeFlowError(
            f"The data cannot be of type {type(data).__name__}: give the path of a file, what "
            "load_own reads, or your arrays as Dataset.from_arrays(**arrays)."
        )
    return Own(data)


def own_env(own: Own, env: str | None, task: str = "") -> EnvSpec | None:
    """Where a policy learnt from the user's own data is judged: the environment that the user
    names, else the one that the data name, else that of a benchmark's task; None without any."""
    box = own.transforms.box
    bounds = (box.low, box.high) if box else None
    if env:
        return replace(EnvSpec.parse(env), box=bounds)
    if own.environment is not None:
        there = own.environment
        return EnvSpec(there.env_id, kwargs=there.kwargs, flatten=there.flatten, box=bounds)
    return replace(source(task).env, box=bounds) if _is_task(task) else None


def normalizer(env: EnvSpec | None) -> Callable[[float], float] | None:
    """How an environment's returns are scored, where its benchmark says so: D4RL's points."""
    from deflow.data.d4rl import normalized_score

    if env is None or env.entry != D4RL_ENTRY:
        return None
    return partial(normalized_score, str(dict(env.kwargs)["name"]))
