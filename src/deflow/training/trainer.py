"""The offline loop: phases of chunks of steps, and what happens between the chunks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from deflow.core.agent import Phase, State
from deflow.core.progress import console, progress_bar
from deflow.core.types import Metrics
from deflow.training import checkpoint
from deflow.training.config import TrainConfig
from deflow.training.device_data import DeviceData, device_columns
from deflow.training.donor import load_donor
from deflow.training.evaluate import Evaluator
from deflow.training.family import Family, compute_rows, members_of, run_chunk
from deflow.training.guard import Frozen, Guard
from deflow.training.metrics import Arrays, MetricsLog, combine
from deflow.training.run_folder import RunFolder
from deflow.training.summary import describe_scores, write_summary
from deflow.training.task import Job


@dataclass
class Position:
    """Where a run stands: the family's clock, and the seconds that training has taken."""

    phase: int = 0
    step: int = 0
    train_seconds: float = 0.0
    frozen: tuple[Frozen, ...] = ()

    def json(self) -> dict[str, Any]:
        return {**vars(self), "frozen": [entry.json() for entry in self.frozen]}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Position:
        frozen = tuple(Frozen(**entry) for entry in document["frozen"])
        return cls(document["phase"], document["step"], document["train_seconds"], frozen)


class Trainer:
    """One family of runs. `run` does it all; nothing here knows which agent it trains."""

    def __init__(self, config: TrainConfig, job: Job, folder: RunFolder):
        self.config, self.job, self.folder = config, job, folder
        self.family = Family.build(config.agent, members_of(config.seeds, config.over))
        self.data = DeviceData.from_dataset(job.dataset)
        self.phases = config.agent.phases(job.spec, config.schedule)
        self.position = Position()
        self.note = ""

    def run(self, resume: bool = False) -> None:
        """All phases, from the start or from the newest sound checkpoint."""
        states = self.family.init(self.job.spec)
        if resume and checkpoint.existing(self.folder.checkpoints):
            states = self._restore(states)
        self.folder.rewind(self.total_step)
        self.log = MetricsLog(self.folder, self.family.members, self.total_step)
        members = len(self.family.members)
        with (
            closing(self.log),
            progress_bar() as self.bar,
            self._evaluator(members) as self.evaluator,
        ):
            fields = self._columns()
            for index, phase in enumerate(self.phases):
                if index >= self.position.phase:
                    states = self._run_phase(index, phase, states, fields)
                fields |= self._rows_left_by(phase, states)
        write_summary(self.folder, self.position.json())

    @property
    def total_step(self) -> int:
        """Gradient steps of all phases so far: the axis of the logs."""
        return sum(p.steps for p in self.phases[: self.position.phase]) + self.position.step

    def _evaluator(self, members: int) -> Evaluator:
        config, job = self.config, self.job
        how = (config.eval_episodes, config.workers, job.own.transforms)
        return Evaluator(job.env, job.spec, members, *how)

    def _restore(self, like: State) -> State:
        sound = checkpoint.newest_sound(self.folder.checkpoints)
        self.position = Position.from_json(checkpoint.read_meta(sound)["position"])
        phase = self.phases[self.position.phase].name
        console.print(f"Going on from {phase} step {self.position.step:,} ({sound.name}).")
        return checkpoint.load(sound, self._kept(like))["states"]

    def _columns(self) -> dict[str, Array]:
        """The row fields that the dataset itself has; all members share them."""
        return device_columns(self.job.dataset, self.config.agent, wanted_columns(self.phases))

    # One phase -------------------------------------------------------------------------------

    def _run_phase(
        self, index: int, phase: Phase, states: State, fields: dict[str, Array]
    ) -> State:
        """Chunk after chunk, up to each point where something is logged, judged or kept."""
        config, last = self.config, index == len(self.phases) - 1
        if index > self.position.phase:
            self.position.phase, self.position.step = index, 0
        if phase.graft and config.flow_from:
            self.position.step = phase.steps
            return _graft(phase, states, load_donor(config.flow_from, self.job, states))
        shared = phase.graft is not None and config.share_flow
        family = self.family.first() if shared else self.family
        active = jax.tree.map(lambda leaf: leaf[:1], states) if shared else states
        guard = Guard(family.members, self.position.frozen)
        bar = self.bar.add_task(phase.name, total=phase.steps, note=self.note)
        interval: list[Arrays] = []
        seconds = 0.0
        while (step := self.position.step) < phase.steps:
            began = time.perf_counter()
            length = self._chunk_length(step, phase.steps, last)
            active, metrics = self._chunk(guard, family, active, fields, phase, index, step, length)
            spent = time.perf_counter() - began
            step = self.position.step = step + length
            self.position.train_seconds += spent
            seconds += spent
            interval.append(metrics)
            self.bar.update(bar, completed=step, note=self.note)
            done = step == phase.steps
            keep = done or step % config.checkpoint_every == 0
            if keep or step % config.log_every == 0:
                self._write_metrics(phase, guard, interval, seconds)
                interval, seconds = [], 0.0
            if last and (done or step % config.eval_every == 0):
                self._evaluate(active)
            if keep:
                states = _graft(phase, states, active) if shared else active
                self._save(states)
        self.bar.update(bar, completed=phase.steps)
        return states

    def _chunk_length(self, step: int, steps: int, last: bool) -> int:
        """Up to the next point where something happens; the same after a resume."""
        config = self.config
        intervals = [config.chunk, config.log_every, config.checkpoint_every]
        intervals += [config.eval_every] if last else []
        return min(steps - step, *(every - step % every for every in intervals))

    def _chunk(
        self,
        guard: Guard,
        family: Family,
        states: State,
        fields: dict[str, Array],
        phase: Phase,
        index: int,
        step: int,
        length: int,
    ) -> tuple[State, Arrays]:
        own = {name: fields[name] for name in phase.fields}

        def run(steps: int) -> tuple[State, Metrics]:
            start = jnp.asarray(step)
            return run_chunk(family, states, self.data, own, start, phase, index, steps)

        after, on_device = run(length)
        metrics = {name: np.asarray(values) for name, values in on_device.items()}
        after, news = guard.check(
            states, after, metrics, phase.name, step, lambda steps: run(steps)[0]
        )
        for entry in news:
            console.print(f"[yellow]{entry.sentence()}")
        self.position.frozen = tuple(guard.frozen)
        return after, metrics

    def _rows_left_by(self, phase: Phase, states: State) -> dict[str, Array]:
        """Columns for the phases to come; computed again, not stored, when a run is resumed."""
        wanted = {name for later in self.phases for name in later.fields}
        one_serves_all = phase.graft and (self.config.share_flow or self.config.flow_from)
        family = self.family.first() if one_serves_all else self.family
        states = jax.tree.map(lambda leaf: leaf[: len(family.members)], states)
        columns = {}
        began = time.perf_counter()
        for field in phase.leaves:
            if field.name in wanted:
                show = self._row_bar(field.name)
                columns[field.name] = compute_rows(family, states, self.data, field, on_block=show)
        self.position.train_seconds += time.perf_counter() - began
        return columns

    def _row_bar(self, name: str) -> Callable[[int, int], None]:
        bar = self.bar.add_task(name, total=None, note="")
        return lambda done, rows: self.bar.update(bar, completed=done, total=rows)

    # Between the chunks ----------------------------------------------------------------------

    def _where(self, phase: str) -> dict[str, Any]:
        return {
            "phase": phase,
            "step": self.position.step,
            "total_step": self.total_step,
            "train_seconds": round(self.position.train_seconds, 3),
        }

    def _write_metrics(
        self, phase: Phase, guard: Guard, interval: list[Arrays], seconds: float
    ) -> None:
        steps = sum(len(next(iter(metrics.values()))) for metrics in interval)
        values = combine(interval)
        values["steps_per_second"] = np.full(len(guard.members), steps / seconds)
        self.log.write(self._where(phase.name), values, guard.alive)

    def _evaluate(self, states: State) -> None:
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
        where = self._where(self.phases[self.position.phase].name)
        self.log.write_evaluation(
            [
                {
                    **where,
                    "member": member.label,
                    "seed": member.seed,
                    **result.json(),
                    "evaluation_seconds": round(times.total, 3),
                }
                for member, result in zip(self.family.members, results, strict=True)
            ]
        )
        self.note = describe_scores(results)
        console.print(f"step {self.position.step:,}: {self.note}")

    def _kept(self, states: State) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"states": states, "keys": jax.random.key_data(self.family.train_keys)}

    def _save(self, states: State) -> None:
        meta = {"position": self.position.json(), "members": [m.label for m in self.family.members]}
        checkpoint.save(
            self.folder.checkpoints,
            self.total_step,
            self._kept(states),
            meta,
            keep=self.config.keep_checkpoints,
        )


def wanted_columns(phases: Sequence[Phase]) -> list[str]:
    """The row fields that phases ask of the dataset: those that none of them leaves behind."""
    left = {field.name for phase in phases for field in phase.leaves}
    return sorted({name for phase in phases for name in phase.fields} - left)


def _graft(phase: Phase, states: State, donor: State) -> State:
    """Give every member what the donor, a family of one, learnt in this phase."""
    assert phase.graft is not None
    one = jax.tree.map(lambda leaf: leaf[0], donor)
    return jax.vmap(lambda state: phase.graft(state, one))(states)  # type: ignore[misc]
