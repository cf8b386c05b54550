"""Train a family of runs, or go on with one, from its configuration to its folder."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from deflow.core.device import require_device
from deflow.core.errors import DeFlowError
from deflow.core.progress import console
from deflow.data.columns import require_column
from deflow.data.own import load_again
from deflow.training.config import TrainConfig
from deflow.training.donor import check_donor
from deflow.training.experience import require_room, room_of
from deflow.training.family import members_of
from deflow.training.policy import transforms_of
from deflow.training.run_folder import RunFolder
from deflow.training.source import Again, Data
from deflow.training.task import Job, prepare
from deflow.training.trainer import Trainer, wanted_columns


def train(config: TrainConfig, dataset: Data = None) -> RunFolder:
    """Train a family of runs; returns its folder.

    `dataset` stands in for the task's own (then `config.env`, or the data themselves, name the
    environment to be judged in). Raises `DeFlowError` before anything is written where something
    is wrong.
    """
    config.validate()
    require_device()
    job = prepare(config, dataset)
    if job.dataset:
        for name in wanted_columns(config.agent.phases(job.spec, config.schedule)):
            require_column(job.dataset, name)
    check_room(config, job)
    if config.flow_from:
        check_donor(config, job)
    path = config.run_dir or default_run_dir(config)
    folder = RunFolder.create(path, config, job.description, job.spec, job.conversion)
    with folder.locked():
        Trainer(config, job, folder).run()
    return folder


def check_room(config: TrainConfig, job: Job) -> None:
    """Raise `DeFlowError` where what a run will meet online finds no place; else say how much."""
    online = config.online(job.spec)
    if online:
        members = len(members_of(config.seeds, config.over))
        room = room_of(config.online_steps, job.dataset, config.overwrite)
        beside = job.dataset.nbytes if job.dataset else 0
        size = require_room(job.spec, members, room, online.phase.fields, beside)
        console.print(f"What is met online will take up to {size / 1e9:.2f} GB.")


def resume(
    path: str | Path,
    dataset: Again = None,
    data_dir: Path | None = None,
    workers: int | None = None,
    env_patience: float | None = None,
) -> RunFolder:
    """Go on with a run from its newest sound checkpoint, as if it had never stopped.

    Raises `DeFlowError` where there is no run, an option is out of range, another process is
    training it, or the data are not those it was trained on.
    """
    folder = RunFolder.open(Path(path))
    config = folder.config()
    config = replace(
        config,
        data_dir=data_dir or config.data_dir,
        workers=config.workers if workers is None else workers,
        env_patience=config.env_patience if env_patience is None else env_patience,
    )
    config.validate()
    if folder.finished():
        console.print(f"{path} is finished; there is nothing left to do.")
        return folder
    with folder.locked():
        job = prepare_again(folder, config, dataset)
        check_room(config, job)
        Trainer(config, job, folder).run(resume=True)
    return folder


def prepare_again(folder: RunFolder, config: TrainConfig, dataset: Again = None) -> Job:
    """What a run was trained on, loaded anew; other data than the run's are refused."""
    require_device()
    if isinstance(dataset, str | Path):
        dataset = load_again(dataset, folder.read_json("conversion.json"))
    recorded = folder.dataset()
    if recorded["own"] and dataset is None:
        raise DeFlowError(
            f"{folder.path} was trained on your own data ({recorded['name']}): give them again, "
            "with --data FILE or dataset=..."
        )
    job = prepare(config, dataset)
    if recorded["fingerprint"] != job.description["fingerprint"]:
        raise DeFlowError(
            f"{folder.path} was trained on other data than {job.description['name']} holds now "
            f"({recorded['transitions']} transitions then, {job.description['transitions']} now): "
            f"give the original with {'--data' if recorded['own'] else '--data-dir'}."
        )
    if recorded["own"] and job.transforms != transforms_of(folder):
        raise DeFlowError(
            f"{folder.path} learnt from data that were scaled or normalised otherwise than "
            f"{job.description['name']} is now: give the file itself, and it is read as then."
        )
    return job


def default_run_dir(config: TrainConfig) -> Path:
    """Where a run is kept whose configuration does not say."""
    # To the microsecond, since several may begin at once.
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    return Path("runs") / f"{config.task}-{config.agent.name}-{config.schedule}-{stamp}"
