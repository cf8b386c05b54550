"""What a run trains on: the data, the environment to be judged in, and what an agent may know."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from deflow.core.errors import DeFlowError
from deflow.core.progress import console
from deflow.core.types import Spec
from deflow.data.dataset import Dataset
from deflow.envs.make import EnvSpec, make_env, validate_env
from deflow.training.config import TrainConfig

_OGBENCH = re.compile(r"(?P<env>.+)-(play|noisy|navigate|stitch|explore)-singletask(-task\d+)?-v0")


@dataclass(frozen=True)
class Job:
    """A dataset beside the environment that judges what is learnt from it."""

    dataset: Dataset
    env: EnvSpec | None
    spec: Spec
    description: dict[str, Any]


def prepare(config: TrainConfig, dataset: Dataset | None = None) -> Job:
    """Load and check everything that a run needs, before any work begins.

    `dataset` stands in for the task's own data; then `config.env` names the environment, and
    without one the run is trained but not evaluated.
    """
    env: EnvSpec | None
    own = dataset is not None
    if dataset is None:
        from deflow.data.names import parse_task
        from deflow.data.ogbench import load_task

        task = parse_task(config.task)
        if task.defaulted:
            console.print(f"{config.task} names no task; taking the published one, {task.name}.")
        dataset, _ = load_task(task, config.data_dir)
        env = EnvSpec.parse(config.env) if config.env else EnvSpec(task.env_id)
    else:
        env = EnvSpec.parse(config.env) if config.env else None
    if env is not None:
        _check_widths(dataset, env)
    spec = Spec(
        observation_dim=dataset.observations.shape[1],
        action_dim=dataset.actions.shape[1],
        reward_range=(float(dataset.rewards.min()), float(dataset.rewards.max())),
        total_steps=config.steps,
    )
    description = {
        "name": dataset.name,
        "own": own,
        "transitions": int(dataset.transitions),
        "episodes": len(dataset.episode_ends),
        "fingerprint": dataset.fingerprint(),
        "behavior_fingerprint": dataset.fingerprint(rewards=False),
    }
    return Job(dataset, env, spec, description)


def _check_widths(dataset: Dataset, spec: EnvSpec) -> None:
    env = make_env(spec)
    observations, actions = validate_env(env)
    env.close()
    found = (dataset.observations.shape[1], dataset.actions.shape[1])
    if found != (observations, actions):
        raise DeFlowError(
            f"The data hold observations of width {found[0]} and actions of width {found[1]}, but "
            f"the environment {spec.name} has {observations} and {actions}: use the one that "
            "belongs to the data."
        )


def env_name(task: str) -> str:
    """What published settings go by: `cube-double` of `cube-double-play-singletask-task2-v0`, and
    any other name, such as D4RL's `antmaze-large-play-v2` or your own, as it is."""
    match = _OGBENCH.fullmatch(task)
    return match["env"] if match else task
