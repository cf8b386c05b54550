"""Several families on one task: planned, checked, and trained one after another.

Nothing here is lost by a kill: a finished run is kept, a stopped one goes on from its newest
checkpoint, and a run that another configuration left is refused before any work. One that fails on
its way does not keep the others from being trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deflow.core.errors import DeFlowError, first_line
from deflow.core.progress import console
from deflow.experiments.cost import mean_gflop, phase_costs
from deflow.experiments.report import overview
from deflow.training.config import TrainConfig
from deflow.training.run_folder import RunFolder
from deflow.training.score import score_name
from deflow.training.source import Data, as_own
from deflow.training.task import prepare, require_sight
from deflow.training.train import resume, train


@dataclass(frozen=True)
class Trained:
    """Runs by name: those that came to their end, and what ended the others."""

    folders: dict[str, RunFolder]
    failed: dict[str, str]


def train_all(configs: Mapping[str, TrainConfig], dataset: Data) -> Trained:
    """Train what is not trained yet. Every configuration names its `run_dir`.

    Raises `DeFlowError`, before anything is trained or written, where one of them is wrong, its
    folder holds a run of another configuration, or the runs have not all the same data; and what
    ended the last one, where none could be trained.
    """
    left = _check(configs, dataset)
    trained = Trained({}, {})
    for number, (name, config) in enumerate(configs.items(), 1):
        console.rule(f"{number} of {len(configs)}  {name}")
        try:
            if name in left:
                _train(config, dataset)
            else:
                console.print("finished before; kept")
            trained.folders[name] = _folder(config)
        except Exception as error:
            if number == len(configs) and not trained.folders:
                raise
            if not isinstance(error, DeFlowError):
                console.print_exception()  # A fault, whose place is to be seen.
            trained.failed[name] = _reason(error)
            console.print(f"{name} failed: {trained.failed[name]}", style="yellow")
    return trained


def _reason(error: Exception) -> str:
    """What ended a run, in a sentence."""
    if isinstance(error, DeFlowError):
        return str(error)
    return f"{type(error).__name__}: {first_line(error)}"


def _train(config: TrainConfig, dataset: Data) -> None:
    """From its beginning, or from its newest checkpoint."""
    if _holds_run(config):
        where = (config.data_dir, config.workers, config.env_patience)
        resume(_folder(config).path, dataset, *where)
    else:
        train(config, dataset)


def _check(configs: Mapping[str, TrainConfig], dataset: Data) -> set[str]:
    """The names of those that are left to train; raises as `train_all` says. What it loads is gone
    when it returns, so that the data are not held twice while agents train."""
    for config in configs.values():
        config.validate()
        if _holds_run(config):
            _folder(config).refuse_other(config, "give the same to go on, or another --out")
    left = {name: config for name, config in configs.items() if not _folder(config).finished()}
    prints = {name: _fingerprint(_folder(c)) for name, c in configs.items() if _holds_run(c)}
    if dataset is not None:
        prints["now"] = as_own(dataset).dataset.fingerprint()
    for needs_data in (True, False):
        alike = [config for config in left.values() if config.agent.needs_data == needs_data]
        if alike:
            job = prepare(alike[0], dataset)
            prints["now"] = prints.get("now") or job.description["fingerprint"]
            for config in alike:
                if job.spec.frame:
                    require_sight(config, config.task)
                phase_costs(config, job.spec)  # Names a column that the data cannot have.
    found = {found for found in prints.values() if found}  # Some agents need no data.
    if len(found) > 1:
        raise DeFlowError(
            f"The runs in {_folder(next(iter(configs.values()))).path.parent} were trained on "
            f"different data ({', '.join(prints)}): give the original data, or another --out."
        )
    return set(left)


def record(name: str, folder: RunFolder) -> dict[str, Any]:
    """What `report` says of a finished run, what a step of it costs, and where it was trained."""
    config = folder.config()
    costs = phase_costs(config, folder.spec())
    return {
        "name": name,
        **overview(folder),
        "seeds": list(config.seeds),
        "train_seconds": folder.read_json("summary.json")["position"]["train_seconds"],
        "settings": config.to_json()["agent"],
        "gflop_per_step": mean_gflop(costs),
        "phases": costs,
        "provenance": folder.read_json("provenance.json"),
    }


def mark_best(records: list[dict[str, Any]]) -> str:
    """Give each record `best` and `near_best`: its score is within 95% of the best one's.

    Returns what is judged, the most telling score that all have (see `training.score`). As
    returns may be negative, the margin is a twentieth of the best one's size. Without evaluations
    nothing is marked.
    """
    score = score_name(records)
    means = [r[score]["mean"] for r in records if r.get(score)]
    top = max(means, default=None)
    for r in records:
        mean = r[score]["mean"] if r.get(score) else None
        r["best"] = mean is not None and mean == top
        r["near_best"] = mean is not None and top is not None and mean >= top - 0.05 * abs(top)
    return score


def _folder(config: TrainConfig) -> RunFolder:
    assert config.run_dir is not None
    return RunFolder(config.run_dir)


def _holds_run(config: TrainConfig) -> bool:
    return _folder(config).exists()


def _fingerprint(folder: RunFolder) -> str:
    return str(folder.dataset()["fingerprint"])
