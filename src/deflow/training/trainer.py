"""The run of a family: its offline phases, in chunks of steps, and then perhaps the online one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from deflow.core.agent import Phase, State
from deflow.core.types import Metrics
from deflow.training import checkpoint
from deflow.training.config import TrainConfig
from deflow.training.device_data import DeviceData, device_columns
from deflow.training.donor import load_donor
from deflow.training.family import Family, compute_rows, members_of, run_chunk
from deflow.training.guard import Guard
from deflow.training.metrics import Arrays
from deflow.training.online import OnlineLoop
from deflow.training.recorder import Position, Recorder
from deflow.training.run_folder import RunFolder
from deflow.training.summary import write_summary
from deflow.training.task import Job


class Trainer:
    """One family of runs. `run` does it all; nothing here knows which agent it trains."""

    def __init__(self, config: TrainConfig, job: Job, folder: RunFolder):
        self.config, self.job, self.folder = config, job, folder
        self.family = Family.build(config.agent, members_of(config.seeds, config.over))
        self.data = DeviceData.from_dataset(job.dataset) if job.dataset else None
        self.offline = config.agent.phases(job.spec, config.schedule)
        self.online = config.online(job.spec)
        self.recorder = Recorder(config, job, folder, self.family, config.phases(job.spec))

    @property
    def position(self) -> Position:
        """Where the run stands."""
        return self.recorder.position

    def run(self, resume: bool = False) -> None:
        """All phases, from the start or from the newest sound checkpoint."""
        states, sound = self.family.init(self.job.spec), None
        if resume and checkpoint.existing(self.folder.checkpoints):
            states, sound = self.recorder.restore(states)
        elif resume:
            self.recorder.begin_again()
        with self.recorder:
            states = self._offline(states)
            if self.online:
                loop = OnlineLoop(self.recorder, self.family, self.online, self.data)
                loop.run(states, sound)
        write_summary(self.folder, self.position.to_json())

    def _offline(self, states: State) -> State:
        """The phases that learn from the data alone."""
        fields: dict[str, Array] = {}
        if self.job.dataset:
            wanted = wanted_columns(self.offline)
            fields = device_columns(self.job.dataset, self.config.agent, wanted)
        for index, phase in enumerate(self.offline):
            if index >= self.position.phase:
                states = self._run_phase(index, phase, states, fields)
            fields |= self._rows_left_by(index, states)
        return states

    # One phase -------------------------------------------------------------------------------

    def _run_phase(
        self, index: int, phase: Phase, states: State, fields: dict[str, Array]
    ) -> State:
        """Chunk after chunk, up to each point where something is logged, judged or kept."""
        config, recorder, last = self.config, self.recorder, index == len(self.offline) - 1
        if index > self.position.phase:
            self.position.phase, self.position.step = index, 0
        if phase.graft and config.flow_from:
            self.position.step = phase.steps
            return _graft(phase, states, load_donor(config.flow_from, self.job, states))
        shared = phase.graft is not None and config.share_flow
        family = self.family.first() if shared else self.family
        active = jax.tree.map(lambda leaf: leaf[:1], states) if shared else states
        guard = Guard(family.members, self.position.frozen)
        recorder.begin(guard)
        if last:
            recorder.make_up(active)
        while self.position.step < phase.steps:
            began = time.perf_counter()
            length = recorder.until_next(judged=last)
            active, metrics = self._chunk(guard, family, active, fields, phase, index, length)
            recorder.advance(length, time.perf_counter() - began, metrics)
            keep = recorder.due(recorder.checkpoint_every)
            if keep or recorder.due(config.log_every):
                recorder.write_metrics()
            # Saved first: an environment that fails while it is judged in costs nothing then.
            if keep:
                states = _graft(phase, states, active) if shared else active
                recorder.save(states)
            if last and recorder.due(config.eval_every):
                recorder.evaluate(active)
        return states

    def _chunk(
        self,
        guard: Guard,
        family: Family,
        states: State,
        fields: dict[str, Array],
        phase: Phase,
        index: int,
        length: int,
    ) -> tuple[State, Arrays]:
        own = {name: fields[name] for name in phase.fields}
        start, data = jnp.asarray(self.position.step), self.data
        assert data is not None

        def run(steps: int) -> tuple[State, Metrics]:
            return run_chunk(family, states, data, own, start, phase, index, steps)

        after, on_device = run(length)
        metrics = {name: np.asarray(values) for name, values in on_device.items()}
        first = self.position.step
        after = guard.check(
            states,
            after,
            metrics,
            phase.name,
            lambda number: max(first + number, 0),
            lambda steps: run(steps)[0],
        )
        return after, metrics

    def _rows_left_by(self, index: int, states: State) -> dict[str, Array]:
        """Columns for the phases to come; computed again, not stored, when a run is resumed."""
        phase, data = self.offline[index], self.data
        to_come = self.offline[max(index + 1, self._done) :]
        wanted = {name for later in to_come for name in later.fields}
        one_serves_all = phase.graft and (self.config.share_flow or self.config.flow_from)
        family = self.family.first() if one_serves_all else self.family
        states = jax.tree.map(lambda leaf: leaf[: len(family.members)], states)
        columns = {}
        began = time.perf_counter()
        assert data is not None
        for field in phase.leaves:
            if field.name in wanted:
                show = self._row_bar(field.name)
                columns[field.name] = compute_rows(family, states, data, field, on_block=show)
        self.position.train_seconds += time.perf_counter() - began
        return columns

    @property
    def _done(self) -> int:
        """How many offline phases are behind us."""
        index, step = self.position.phase, self.position.step
        return index + (index < len(self.offline) and step == self.offline[index].steps)

    def _row_bar(self, name: str) -> Callable[[int, int], None]:
        bar = self.recorder.bar.add_task(name, total=None, note="")
        return lambda done, rows: self.recorder.bar.update(bar, completed=done, total=rows)


def wanted_columns(phases: Sequence[Phase]) -> list[str]:
    """The row fields that phases ask of the dataset: those that none of them leaves behind."""
    left = {field.name for phase in phases for field in phase.leaves}
    return sorted({name for phase in phases for name in phase.fields} - left)


def _graft(phase: Phase, states: State, donor: State) -> State:
    """Give every member what the donor, a family of one, learnt in this phase."""
    assert phase.graft is not None
    one = jax.tree.map(lambda leaf: leaf[0], donor)
    return jax.vmap(lambda state: phase.graft(state, one))(states)  # type: ignore[misc]
