"""A run's folder: configuration, machine, metrics, evaluations, checkpoints, the curve."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deflow.core.errors import DeFlowError
from deflow.core.files import folder_made_whole, write_json, written_whole
from deflow.core.progress import console
from deflow.core.types import Spec
from deflow.envs.make import EnvSpec
from deflow.training import checkpoint
from deflow.training.config import LOCAL, TrainConfig

JUDGED_BY = ("eval_episodes", "eval_seed")
"""Fields that say how a policy is judged; the agent's settings say how it acts."""

PACKAGES = (
    "deflow-rl",
    "jax",
    "equinox",
    "optax",
    "orbax-checkpoint",
    "gymnasium",
    "ogbench",
    "mujoco",
    "numpy",
)


class RunFolder:
    """Paths and files of one run. Whole files are written atomically, lines are appended."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.evaluations = path / "evaluations.jsonl"

    @classmethod
    def create(
        cls,
        path: Path,
        config: TrainConfig,
        dataset: dict[str, Any],
        spec: Spec,
        conversion: dict[str, Any],
        begun: RunFolder | None = None,
        option: str = "--run-dir",
    ) -> RunFolder:
        """A new folder, of a run from its beginning or from where another (`begun`) came to.

        One that holds a run already is refused, its run left as it is; `option` is what the user
        chooses another by.
        """
        folder = cls(path)
        if folder.exists():
            folder.refuse_other(config, f"choose another {option}")
            with folder.locked():  # One that is being trained now is not to be gone on with.
                raise DeFlowError(
                    f"{path} holds this very run already: go on with `deflow resume {path}`, or "
                    f"choose another {option}."
                )
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise DeFlowError(f"{path} exists and is not a run folder: choose another {option}.")
        if path.exists() and path.samefile("."):
            raise DeFlowError(f"The current folder cannot become a run's: choose another {option}.")
        # Made beside its place and moved there: a kill leaves a whole folder or none.
        place = path.resolve()
        # A run is resumed from any folder.
        data_dir = config.data_dir and config.data_dir.absolute()
        try:
            # Fails in the end where another process was first.
            with folder_made_whole(place) as beside:
                draft = cls(beside)
                draft.checkpoints.mkdir()
                origin = {"begun_from": begun.origin()} if begun else {}
                draft.write_json("provenance.json", {**provenance(dataset), **origin})
                draft.write_json("spec.json", asdict(spec))
                draft.write_json("conversion.json", conversion)
                draft.write_json("config.json", replace(config, data_dir=data_dir).to_json())
                if begun:
                    draft._go_on_from(begun, config)
        except OSError as error:
            raise DeFlowError(
                f"The run folder {path} cannot be written ({_reason(error)}): choose another "
                f"{option}."
            ) from error
        return folder

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training this run, until the block or this process ends,
        however it ends; to read needs no lock.

        Raises `DeFlowError` where another trains it, or nothing can be written here.
        """
        try:
            file = (self.path / ".lock").open("a")
        except OSError as error:
            raise DeFlowError(
                f"The run folder {self.path} cannot be written ({error.strerror}): copy the run to "
                "where you may write, and go on with it there."
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DeFlowError(
                    f"Another process is training {self.path} now: wait for its end, or stop it "
                    f"and go on with `deflow resume {self.path}`."
                ) from error
            except OSError:  # Such file systems exist, and one may train on them.
                console.print(f"Nothing here keeps a second process from training {self.path}.")
            yield

    def origin(self) -> dict[str, Any]:
        """What a run that goes on from this one says of it."""
        sound = checkpoint.newest_sound(self.checkpoints)
        return {
            "run": self.path.name,
            "checkpoint": sound.name,
            "manifest_sha256": checkpoint.fingerprint(sound),
            "config": {k: v for k, v in self.config().to_json().items() if k not in LOCAL},
        }

    def _go_on_from(self, begun: RunFolder, config: TrainConfig) -> None:
        """Take over another run's newest sound checkpoint and what it logged up to there, but for
        how it was judged there, where this one is judged otherwise: what came before is compared
        with what comes after."""
        sound = checkpoint.newest_sound(begun.checkpoints)
        shutil.copytree(sound, self.checkpoints / sound.name)
        for mine, theirs in ((self.metrics, begun.metrics), (self.evaluations, begun.evaluations)):
            self.append(mine, begun.read_lines(theirs))
        differs = config.differences(begun.config())
        otherwise = any(name in JUDGED_BY or name.startswith("agent.") for name in differs)
        if config.eval_episodes and otherwise:
            self.rewind(checkpoint.number_of(sound), judged=False)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """A folder that holds a run; anything else is refused."""
        folder = cls(Path(os.path.expanduser(path)))
        if not folder.exists():
            raise DeFlowError(f"{path} is not a run folder (it has no config.json).")
        return folder

    def refuse_other(self, config: TrainConfig, remedy: str) -> None:
        """Raise `DeFlowError`, naming the fields, where this run has another configuration."""
        different = config.differences(self.config())
        if different:
            raise DeFlowError(
                f"{self.path} was trained with another configuration (it differs in "
                f"{', '.join(different)}): {remedy}."
            )

    def finished(self) -> bool:
        """Whether the run came to its end, and what it ended with is sound."""
        kept = checkpoint.existing(self.checkpoints)
        return self.ended() and bool(kept) and checkpoint.damage(kept[-1]) is None

    def ended(self) -> bool:
        """Whether the run came to its end."""
        return (self.path / "summary.json").is_file()

    def exists(self) -> bool:
        return (self.path / "config.json").is_file()

    def config(self) -> TrainConfig:
        file = self.path / "config.json"
        try:
            return TrainConfig.from_json(json.loads(file.read_text()))
        except ValueError as error:
            raise DeFlowError(f"{file} cannot be read: {error}.") from error
        except DeFlowError as error:
            raise DeFlowError(f"{file}: {error}") from error

    def spec(self) -> Spec:
        """What the agent knows of its task."""
        return Spec.from_json(self.read_json("spec.json"))

    def dataset(self) -> dict[str, Any]:
        """What the run was trained on: `Job.description`."""
        found: dict[str, Any] = self.read_json("provenance.json")["dataset"]
        return found

    def env(self) -> EnvSpec | None:
        """Where the run is judged; None where it names no environment."""
        found = self.read_json("conversion.json")["env"]
        return EnvSpec.from_json(found) if found else None

    def read_json(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.path / name).read_text())
        return document

    def write_json(self, name: str, document: dict[str, Any]) -> None:
        write_json(self.path / name, document)

    def append(self, file: Path, records: list[dict[str, Any]]) -> None:
        """Add one line a record."""
        with file.open("a") as lines:
            lines.writelines(json.dumps(record) + "\n" for record in records)
            lines.flush()
            os.fsync(lines.fileno())

    def read_lines(self, file: Path) -> list[dict[str, Any]]:
        """The records of a file; a last line that a kill cut short is left out."""
        if not file.exists():
            return []
        records = []
        for line in file.read_text().splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def rewind(self, total_step: int, judged: bool) -> None:
        """Forget what was logged after a checkpoint, so that a resumed run logs it once, and the
        evaluations of that very step where not every member was `judged`."""
        ends = {self.metrics: total_step, self.evaluations: total_step - (not judged)}
        for file, end in ends.items():
            kept = [r for r in self.read_lines(file) if r["total_step"] <= end]
            with written_whole(file) as temporary:
                temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))


def provenance(dataset: dict[str, Any]) -> dict[str, Any]:
    """What a reader needs to judge or repeat a result: command, versions, machine, data."""
    import jax

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except ImportError:
            versions[package] = "not installed"
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": versions,
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cpus": os.cpu_count(),
            "devices": [str(device) for device in jax.devices()],
        },
        "dataset": dataset,
    }


def _reason(error: OSError) -> str:
    """What the system says; of several files that were not copied, of the first."""
    return str(error.args[0][0][-1] if isinstance(error, shutil.Error) else error.strerror)


def _processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
