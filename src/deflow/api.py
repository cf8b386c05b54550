"""`deflow.train` and `deflow.evaluate`: the commands of those names, as functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deflow.agents.registry import from_settings, name_of, preset, settings_of, usual_steps
from deflow.core.agent import Agent
from deflow.core.errors import DeFlowError, near
from deflow.data.own import load_own
from deflow.training.config import TrainConfig
from deflow.training.delta import auto_of, with_delta
from deflow.training.judge import judge
from deflow.training.run_folder import RunFolder
from deflow.training.source import Data
from deflow.training.task import env_name
from deflow.training.train import train as train_config


def train(
    task: str,
    agent: str | Agent = "deflow",
    *,
    dataset: Data | str | Path = None,
    settings: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0,),
    over: Mapping[str, Sequence[float]] | None = None,
    run_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
    **options: Any,
) -> RunFolder:
    """Train a family of runs and return its folder.

    Args:
        task: a task of OGBench or D4RL; with `dataset`, any name for your own.
        agent: the name of a system, which begins from the task's published settings and steps, or
            an agent made by you (`DeFlow(delta=0.002)`), which is taken as it is.
        dataset: your own data: a file or folder, `Dataset.from_arrays`, or what
            `deflow.data.own.load_own` reads, whose options name columns and bounds;
            `env="module:make"` judges what is learnt.
        settings: settings of the agent, over those that it begins from; a `delta` of `"auto"`, or
            `"auto:0.5"`, is estimated from the data.
        seeds: one run for each, all in one program.
        over: numeric settings to sweep in the same family, each with its values.
        run_dir: where the run is kept; by default under `runs/`.
        data_dir: where datasets are.
        **options: any other field of `TrainConfig`, such as `steps`, `schedule`, `eval_every`.

    Raises:
        DeFlowError: something is wrong with the configuration or the data; nothing was written.
    """
    _check_names(options)
    settings = dict(settings or {})
    auto = auto_of(settings.get("delta"))
    if auto is not None:
        del settings["delta"]
    if isinstance(agent, str):
        online = bool(options.get("online_steps"))
        published = preset(agent, env_name(task), online)
        options = {"steps": usual_steps(agent, env_name(task), online), **options}
        agent = from_settings(agent, {**published, **settings})
    elif settings:
        agent = from_settings(name_of(agent), {**settings_of(agent), **settings})
    options |= {"seeds": seeds, "over": over or {}}
    options |= {"run_dir": run_dir or None, "data_dir": data_dir or None}
    config = TrainConfig(task=task, agent=agent, **options)
    data = load_own(dataset) if isinstance(dataset, str | Path) else dataset
    if auto is not None:
        config = with_delta(config, data, auto)
    return train_config(config, data)


evaluate = judge


def _check_names(options: Mapping[str, Any]) -> None:
    known = [field.name for field in dataclasses.fields(TrainConfig)]
    for name in options.keys() - known:
        hint = near(name, known, f"there are {', '.join(known)}.", most=1)
        raise DeFlowError(f"Training has no option {name!r}; {hint}")
