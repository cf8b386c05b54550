"""OGBench's names: which task, dataset and environment a user's word stands for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import product

from deflow.core.errors import DeFlowError, near

_TYPES = {
    "cube": ("play", "noisy"),
    "scene": ("play", "noisy"),
    "puzzle": ("play", "noisy"),
    "pointmaze": ("navigate", "stitch"),
    "antmaze": ("navigate", "stitch", "explore"),
    "humanoidmaze": ("navigate", "stitch"),
    "antsoccer": ("navigate", "stitch"),
}
_TASK = re.compile(r"(?P<dataset>.+)-singletask(-task(?P<task>\d+))?-v0")


@dataclass(frozen=True)
class Task:
    """One single-task problem of OGBench.

    Attributes:
        name: the full name, always with its number: `cube-double-play-singletask-task2-v0`.
        dataset: the set it learns from, shared by all tasks of its environment:
            `cube-double-play-v0`.
        env_id: the environment as Gymnasium registers it: `cube-double-singletask-task2-v0`.
        defaulted: whether the number was left out and the published default was taken (say so).
        visual: whether it is learned from frames.
    """

    name: str
    dataset: str
    env_id: str
    defaulted: bool
    visual: bool = False


def family(name: str) -> str:
    """The first word of an OGBench name: `cube`, `scene`, `puzzle`, `pointmaze`, ..."""
    return name.split("-", 1)[0]


def is_visual(name: str) -> bool:
    """Whether a set or a task of this name is seen rather than known by its state."""
    return family(name) == "visual"


@cache
def _environments() -> dict[str, int]:
    """State environments with their numbers of tasks, e.g. `{"cube-double": 5, ...}`."""
    import gymnasium
    import ogbench  # noqa: F401  (registers the environments)

    found: dict[str, int] = {}
    for env_id in gymnasium.registry:
        match = re.fullmatch(r"(.+)-singletask-task(\d+)-v0", env_id)
        if match and family(env_id) in _TYPES:
            found[match[1]] = max(found.get(match[1], 0), int(match[2]))
    return found


@cache
def datasets() -> tuple[str, ...]:
    """Every dataset name that a task may learn from, e.g. `cube-double-play-v0`."""
    return tuple(f"{env}-{kind}-v0" for env in _environments() for kind in _TYPES[family(env)])


@cache
def tasks() -> tuple[str, ...]:
    """Every full task name, e.g. `cube-double-play-singletask-task2-v0`."""
    return tuple(
        f"{env}-{kind}-singletask-task{number}-v0"
        for env, count in _environments().items()
        for kind, number in product(_TYPES[family(env)], range(1, count + 1))
    )


def parse_task(name: str) -> Task:
    """Read a task name; without `taskN` the published default task is taken.

    Raises:
        DeFlowError: the task is unknown (the nearest names are offered), or of a kind that is not
            supported: goal-conditioned, discrete actions, oracle goal representations, and most
            from pixels.
    """
    _refuse_unsupported(name)
    if is_visual(name):
        from deflow.data.visual import parse_visual

        return parse_visual(name)
    match = _TASK.fullmatch(name)
    if match is None and name in datasets():
        raise DeFlowError(
            f"{name!r} names a goal-conditioned task, and the agents here learn single tasks with "
            f"a reward; name one of its tasks, such as {_insert_singletask(name, 1)!r}."
        )
    if match is None or f"{match['dataset']}-v0" not in datasets():
        raise _unknown("task", name, tasks())
    dataset = f"{match['dataset']}-v0"
    environment = match["dataset"].rsplit("-", 1)[0]
    number = match["task"] or str(_default_task(environment))
    full = _insert_singletask(dataset, number)
    if full not in tasks():
        raise _unknown("task", name, tasks())
    env_id = f"{environment}-singletask-task{number}-v0"
    return Task(full, dataset, env_id, defaulted=match["task"] is None)


def parse_dataset(name: str) -> str:
    """The dataset that a dataset's or a task's name stands for: `cube-double-play-v0`.

    Raises:
        DeFlowError: as `parse_task`.
    """
    _refuse_unsupported(name)
    if is_visual(name):
        from deflow.data.visual import parse_visual_dataset

        return parse_visual_dataset(name)
    if name in datasets():
        return name
    match = _TASK.fullmatch(name)
    if match is None:
        raise _unknown("dataset", name, (*datasets(), *tasks()))
    return parse_task(name).dataset if match["task"] else _known(f"{match['dataset']}-v0", name)


def _known(dataset: str, name: str) -> str:
    if dataset not in datasets():
        raise _unknown("dataset", name, (*datasets(), *tasks()))
    return dataset


def _insert_singletask(dataset: str, number: int | str) -> str:
    return dataset.removesuffix("-v0") + f"-singletask-task{number}-v0"


@cache
def _default_task(environment: str) -> int:
    """The number that OGBench itself gives `<environment>-singletask-v0`."""
    from deflow.data.simulator import make_env

    env = make_env(f"{environment}-singletask-v0")
    try:
        return int(env.unwrapped._reward_task_id)  # type: ignore[attr-defined]
    finally:
        env.close()


def _refuse_unsupported(name: str) -> None:
    words = name.split("-")
    if "powderworld" in words:
        raise DeFlowError(
            f"{name!r} has discrete actions, and the agents here need continuous ones in a box; "
            "choose a task of cube, scene, puzzle or a maze."
        )
    if "oraclerep" in words:
        raise DeFlowError(
            f"{name!r} asks for oracle goal representations, which only goal-conditioned agents "
            "use; name a single task, such as 'cube-double-play-singletask-task2-v0'."
        )


def _unknown(kind: str, name: str, known: tuple[str, ...]) -> DeFlowError:
    example = "an OGBench name looks like 'cube-double-play-singletask-task2-v0'."
    own = " Data of your own are given with --data." if kind == "task" else ""
    hint = near(name, known, example, alike=0.5)
    return DeFlowError(f"There is no {kind} {name!r}; {hint}{own}")
