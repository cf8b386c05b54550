"""Go on with an offline run in its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from deflow.agents.registry import from_settings, name_of, settings_of
from deflow.core.agent import Agent
from deflow.core.checks import require
from deflow.core.errors import DeFlowError
from deflow.training.config import TrainConfig
from deflow.training.family import Family, members_of
from deflow.training.run_folder import RunFolder
from deflow.training.source import Again
from deflow.training.task import Job
from deflow.training.train import check_room, prepare_again
from deflow.training.trainer import Trainer

OPTIONS = frozenset(
    {
        "updates_per_step",
        "overwrite",
        "eval_every",
        "eval_episodes",
        "eval_seed",
        "log_every",
        "checkpoint_every",
        "keep_checkpoints",
        "chunk",
        "env",
        "env_patience",
        "data_dir",
        "workers",
    }
)
"""Fields of `TrainConfig` that may differ online; the others say what was trained."""


def finetune(
    path: str | Path,
    steps: int,
    *,
    run_dir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    dataset: Again = None,
    **options: Any,
) -> RunFolder:
    """Let every member of a finished offline run go on learning while it acts; returns the folder
    of the new run, which holds the old one's curves too. The old folder is left as it is.

    Networks, optimisers, targets, multiplier, keys and clock are carried on; the data it was
    trained on stay within reach. Where settings or the way of judging differ, it is judged anew
    before it goes on.

    Args:
        path: the offline run's folder.
        steps: steps in the environment.
        run_dir: the new run's folder; by default the old one's name and `-online`.
        settings: settings of the agent that differ online (`{"prior_online": "frozen"}`).
        dataset: the user's own data again, or their file, where the run was trained on such.
        **options: those of `OPTIONS` that differ from the offline run's.

    Raises:
        DeFlowError: an option is none of these; a setting is one that the run sweeps, is out of
            range, asks for other networks or belongs to the offline past; the run is not finished,
            went online before, or was trained on other data than are there now; the agent does not
            learn online; or the environment has other spaces.
    """
    path = RunFolder.open(Path(path)).path.resolve()
    folder = RunFolder(path)
    config = folder.config()
    _check_names(config, settings or {}, options)
    if config.online_steps:
        raise DeFlowError(
            f"{path} has learnt online already, for {config.online_steps:,} steps: choose the "
            "offline run that it began from."
        )
    if not folder.finished():
        raise DeFlowError(f"{path} is not finished: `deflow resume {path}` first.")
    agent = from_settings(name_of(config.agent), {**settings_of(config.agent), **(settings or {})})
    options |= {"run_dir": run_dir or path.with_name(f"{path.name}-online")}
    config = replace(config, agent=agent, online_steps=steps, **options)
    require("steps", config.online_steps, at_least=1)
    config.validate()
    job = prepare_again(folder, config, dataset)
    _check_past(folder, config, job)
    _check_world(folder, job)
    check_room(config, job)
    about = (config, job.description, job.spec, job.conversion)
    assert config.run_dir is not None
    online = RunFolder.create(config.run_dir, *about, begun=folder, option="--out")
    with online.locked():
        Trainer(config, job, online).run(resume=True)
    return online


def _check_names(
    config: TrainConfig, settings: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    other = sorted(options.keys() - OPTIONS)
    if other:
        raise DeFlowError(
            f"{other[0]} is what the run was trained with, and stays; what may differ online is "
            f"{', '.join(sorted(OPTIONS))}."
        )
    swept = sorted(settings.keys() & config.over.keys())
    if swept:
        raise DeFlowError(
            f"The run's members differ in {swept[0]}, which cannot be set for all of them."
        )


def _check_world(folder: RunFolder, job: Job) -> None:
    """Raise `DeFlowError` where the run was judged in another environment than it would act in."""
    known = folder.env()
    if known and job.env and known != job.env:
        raise DeFlowError(
            f"{folder.path} was judged in {known.name}, and would go on in {job.env.name}: a run "
            "stays in its task, so leave --env."
        )


def _check_past(folder: RunFolder, config: TrainConfig, job: Job) -> None:
    """Raise `DeFlowError` where a setting would have made another state, or other phases."""
    then, now = folder.config().agent, config.agent

    def shapes(agent: Agent) -> Any:
        family = Family.build(agent, members_of(config.seeds, config.over))
        return family.shapes(job.spec)

    def lengths(agent: Agent) -> list[tuple[str, int]]:
        return [(p.name, p.steps) for p in agent.phases(job.spec, config.schedule)]

    if shapes(now) != shapes(then):
        raise DeFlowError(
            f"The networks of {folder.path} have other sizes than these settings ask for: leave "
            "their sizes as they are."
        )
    if lengths(now) != lengths(then):
        before = settings_of(then)
        changed = [name for name, value in settings_of(now).items() if value != before[name]]
        raise DeFlowError(
            f"{folder.path} has its offline phases behind it, and these settings would have made "
            f"them longer or shorter: leave {' or '.join(changed)} as it was."
        )
