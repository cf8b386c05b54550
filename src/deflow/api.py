"""`deflow.train`: the command line's `train`, as a function."""

from __future__ import annotations

import dataclasses
import difflib
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deflow.agents.registry import from_settings, name_of, preset, settings_of, usual_steps
from deflow.core.agent import Agent
from deflow.core.errors import DeFlowError
from deflow.data.own import load_own
from deflow.training.config import TrainConfig
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
        settings: settings of the agent, over those that it begins from.
        seeds: one run for each, all in one program.
        over: numeric settings to sweep in the same family, each with its values.
        run_dir: where the run is kept; by default under `runs/`.
        data_dir: where datasets are.
        **options: any other field of `TrainConfig`, such as `steps`, `schedule`, `eval_every`.

    Raises:
        DeFlowError: something is wrong with the configuration or the data; nothing was written.
    """
    _check_names(options)
    if isinstance(agent, str):
        online = options.get("online_steps", 0) > 0
        published = preset(agent, env_name(task), online)
        options = {"steps": usual_steps(agent, env_name(task), online), **options}
        agent = from_settings(agent, {**published, **(settings or {})})
    elif settings:
        agent = from_settings(name_of(agent), {**settings_of(agent), **settings})
    config = TrainConfig(
        task=task,
        agent=agent,
        # Numpy's numbers are none of JSON's.
        seeds=tuple(operator.index(seed) for seed in seeds),
        over={name: tuple(map(float, values)) for name, values in (over or {}).items()},
        run_dir=Path(run_dir) if run_dir else None,
        data_dir=Path(data_dir) if data_dir else None,
        **options,
    )
    return train_config(config, load_own(dataset) if isinstance(dataset, str | Path) else dataset)


def _check_names(options: Mapping[str, Any]) -> None:
    known = [field.name for field in dataclasses.fields(TrainConfig)]
    for name in options.keys() - known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
        raise DeFlowError(f"Training has no option {name!r}; {hint}")
