"""Where a run stands, and what it writes between its steps: metrics, scores, checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import PyTree

from deflow.core.agent import ONLINE, Phase, State
from deflow.core.progress import console, progress_bar
from deflow.training import checkpoint
from deflow.training.config import TrainConfig
from deflow.training.evaluate import Evaluator
from deflow.training.family import Family
from deflow.training.guard import Frozen, Guard
from deflow.training.metrics import Arrays, MetricsLog, combine
from deflow.training.run_folder import RunFolder
from deflow.training.summary import describe_scores
from deflow.training.task import Job

TRIES = 3
"""How often an evaluation is begun, where its environments fail."""
GUARDED = 100
"""Online, a diverged member is noticed within this many steps. Online steps are not compiled into
one scan, so a longer chunk would save no time."""
LONGEST_INTERVAL = 100_000
"""Steps between checkpoints, where nothing is said and a phase is long."""


@dataclass
class Position:
    """Where a run stands: the family's clock, and the seconds that training has taken."""

    phase: int = 0
    step: int = 0
    train_seconds: float = 0.0
    frozen: tuple[Frozen, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "frozen": [entry.to_json() for entry in self.frozen]}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Position:
        frozen = tuple(Frozen(**entry) for entry in document["frozen"])
        return cls(document["phase"], document["step"], document["train_seconds"], frozen)


class Recorder:
    """The memory of a run. A context manager: inside it there are a log, a progress bar and
    environments to be judged in."""

    def __init__(
        self,
        config: TrainConfig,
        job: Job,
        folder: RunFolder,
        family: Family,
        phases: Sequence[Phase],
    ):
        self.config, self.job, self.folder, self.family = config, job, folder, family
        self.phases = phases
        self.position = Position()
        self.note = ""

    @property
    def total_step(self) -> int:
        """Steps of all phases so far: the axis of the logs."""
        return sum(p.steps for p in self.phases[: self.position.phase]) + self.position.step

    def __enter__(self) -> Recorder:
        config, job, members = self.config, self.job, self.family.members
        self.folder.rewind(self.total_step, self.judged())
        self._open = ExitStack()
        self.log = MetricsLog(self.folder, members)
        self._open.callback(self.log.close)
        self.bar = self._open.enter_context(progress_bar())
        self.evaluator = Evaluator(
            job.env,
            job.spec,
            len(members),
            config.eval_episodes,
            config.workers,
            job.transforms,
            config.env_patience,
            TRIES,
        )
        self._open.enter_context(self.evaluator)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def begin(self, guard: Guard) -> None:
        """Follow the phase in which the run stands; `guard` knows who still learns."""
        phase = self.phases[self.position.phase]
        self.guard = guard
        done = self.position.step
        self._shown = self.bar.add_task(
            phase.name, total=phase.steps, completed=done, note=self.note
        )
        self._start_line()

    def _start_line(self) -> None:
        self._measured: list[Arrays] = []
        self._steps, self._seconds = 0, 0.0

    def advance(self, steps: int, seconds: float, measured: Arrays) -> None:
        """So many more steps of the phase are done, in so many seconds."""
        position = self.position
        for entry in self.guard.frozen[len(position.frozen) :]:
            console.print(entry.sentence(), style="yellow")
        position.frozen = tuple(self.guard.frozen)
        position.step += steps
        position.train_seconds += seconds
        self._steps, self._seconds = self._steps + steps, self._seconds + seconds
        self._measured += [measured] if measured else []
        self.bar.update(self._shown, completed=position.step, note=self.note)

    @property
    def checkpoint_every(self) -> int:
        """Steps between checkpoints of this phase."""
        phase = self.phases[self.position.phase]
        tenth = max(1, phase.steps // 10)
        if phase.name != ONLINE:
            # Whole chunks: each length of one would be compiled by itself.
            tenth += -tenth % self.config.chunk
        return self.config.checkpoint_every or min(LONGEST_INTERVAL, tenth)

    def until_next(self, *, judged: bool) -> int:
        """Steps up to the next point where something happens; the same after a resume."""
        config, step = self.config, self.position.step
        online = self.phases[self.position.phase].name == ONLINE
        chunk = min(config.chunk, GUARDED) if online else config.chunk
        intervals = [chunk, config.log_every, self.checkpoint_every]
        intervals += [config.eval_every] if judged else []
        left = self.phases[self.position.phase].steps - step
        return min(left, *(every - step % every for every in intervals))

    def due(self, every: int) -> bool:
        """Whether something that happens `every` so many steps happens now, as at a phase's end."""
        step = self.position.step
        return step % every == 0 or step == self.phases[self.position.phase].steps

    def write_metrics(self, more: Arrays | None = None) -> None:
        """One line a member for all that was measured since the last, and for `more`, which has a
        value for each member."""
        values = {**(combine(self._measured) if self._measured else {}), **(more or {})}
        rate = self._steps / self._seconds
        values["steps_per_second"] = np.full(len(self.guard.members), rate)
        self.log.write(self._where(), values, self.guard.alive)
        self._start_line()

    def judged(self) -> bool:
        """Whether every member was judged where the run stands now."""
        found = {
            record["member"]
            for record in self.folder.read_lines(self.folder.evaluations)
            if record["total_step"] == self.total_step
        }
        return found >= {member.label for member in self.family.members}

    def make_up(self, states: State) -> None:
        """Judge where the run was stopped between a checkpoint and its evaluation."""
        if self.position.step and self.due(self.config.eval_every) and not self.judged():
            self.evaluate(states)

    def evaluate(self, states: State) -> None:
        """Judge every member, where there is an environment to be judged in."""
        if self.job.env is None or self.config.eval_episodes == 0:
            return
        bar = self.bar.add_task("evaluate", total=None, note="")
        results, times = self.evaluator(
            self.family.agents,
            states,
            self.config.eval_seed,
            on_tick=lambda done, total: self.bar.update(bar, completed=done, total=total),
        )
        self.bar.remove_task(bar)
        where = self._where()
        self.log.write_evaluation(
            [
                {
                    **where,
                    "member": member.label,
                    "seed": member.seed,
                    **result.to_json(),
                    "evaluation_seconds": round(times.total, 3),
                }
                for member, result in zip(self.family.members, results, strict=True)
            ]
        )
        self.note = describe_scores(results)
        console.print(f"{where['phase']} step {where['step']:,}: {self.note}")

    def save(
        self,
        states: State,
        beside: Mapping[str, PyTree] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """A checkpoint of the states, of other arrays by name, and of what `more` says of them."""
        members = [member.label for member in self.family.members]
        checkpoint.save(
            self.folder.checkpoints,
            self.total_step,
            {"arrays": self.family.kept(states), **(beside or {})},
            {"position": self.position.to_json(), "members": members, **(more or {})},
            keep=self.config.keep_checkpoints,
        )

    def restore(self, like: State) -> tuple[State, Path]:
        """The states of the newest sound checkpoint, and the checkpoint."""
        sound = checkpoint.newest_sound(self.folder.checkpoints)
        self.position = Position.from_json(checkpoint.read_meta(sound)["position"])
        phase = self.phases[self.position.phase].name
        lost = self._logged() - self.total_step
        again = f"; at least {lost:,} steps are done again" if lost > 0 else ""
        console.print(f"Going on from {phase} step {self.position.step:,} ({sound.name}){again}.")
        return checkpoint.load(sound, self.family.kept(like))["states"], sound

    def begin_again(self) -> None:
        """Say what is lost where a run that was stopped had no checkpoint yet."""
        if done := self._logged():
            console.print(
                f"There is no checkpoint yet: at least {done:,} steps are done again, from the "
                "beginning."
            )

    def _logged(self) -> int:
        """The last step of which something was written down."""
        files = (self.folder.metrics, self.folder.evaluations)
        lines = [line for file in files for line in self.folder.read_lines(file)]
        return max((line["total_step"] for line in lines), default=0)

    def _where(self) -> dict[str, Any]:
        return {
            "phase": self.phases[self.position.phase].name,
            "step": self.position.step,
            "total_step": self.total_step,
            "train_seconds": round(self.position.train_seconds, 3),
        }
