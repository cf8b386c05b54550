"""The online loop: one step of every environment, one action and some updates of every member."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deflow.core.agent import Online, State
from deflow.core.errors import DeFlowError
from deflow.core.progress import console
from deflow.envs.lockstep import Lockstep, Steps
from deflow.training import checkpoint
from deflow.training.acting import explore, learn
from deflow.training.device_data import DeviceData, device_columns
from deflow.training.experience import Experience
from deflow.training.family import Family
from deflow.training.guard import Guard
from deflow.training.metrics import Arrays
from deflow.training.played import Played
from deflow.training.recorder import Recorder

BOOKS, REPLAY = "online", "replay"
"""Where a checkpoint keeps the books and the transitions."""


class OnlineLoop:
    """The online phase of a run: the members act and learn in lockstep."""

    def __init__(self, recorder: Recorder, family: Family, online: Online, data: DeviceData | None):
        config, job, phase = recorder.config, recorder.job, online.phase
        self.recorder, self.family, self.online, self.data = recorder, family, online, data
        self.config, self.spec, self.transforms = config, job.spec, job.transforms
        self.index = len(recorder.phases) - 1
        self.columns = {}
        if job.dataset:
            found = device_columns(job.dataset, config.agent, phase.fields)
            self.columns = {name: shared[0] for name, shared in found.items()}
        self.experience = Experience(
            job.spec,
            len(family.members),
            phase.steps,
            phase.fields,
            {name: config.agent.column_settings(name) for name in phase.fields},
            job.dataset,
            config.overwrite,
        )
        self.played = Played(len(family.members))

    def run(self, states: State, sound: Path | None = None) -> State:
        """Act and learn to the end, from the beginning or from a checkpoint of this phase."""
        recorder, env = self.recorder, self.recorder.job.env
        if env is None:
            raise DeFlowError("There is no environment to learn in: give --env module:make.")
        seeds = [member.seed for member in self.family.members]
        labels = [member.label for member in self.family.members]
        patience = self.config.env_patience
        with Lockstep(env, seeds, labels=labels, patience=patience) as worlds:
            if sound and recorder.position.phase == self.index:
                self._restore(worlds, sound)
                recorder.make_up(states)
            else:
                recorder.position.phase, recorder.position.step = self.index, 0
                worlds.begin()
                if not recorder.judged():
                    recorder.evaluate(states)
            return self._run(worlds, states)

    def _run(self, worlds: Lockstep, states: State) -> State:
        config, recorder = self.config, self.recorder
        position, phase = recorder.position, self.online.phase
        guard = Guard(self.family.members, position.frozen)
        recorder.begin(guard)
        while position.step < phase.steps:
            began = time.perf_counter()
            length = recorder.until_next(judged=True)
            states, metrics = self._chunk(worlds, guard, states, length)
            recorder.advance(length, time.perf_counter() - began, metrics)
            keep = recorder.due(recorder.checkpoint_every)
            judge = recorder.due(config.eval_every)
            # Wherever a checkpoint may lie, a line of metrics ends.
            if keep or judge or recorder.due(config.log_every):
                recorder.write_metrics(self.played.take(worlds.failures))
            if keep:
                self._save(worlds, states)
            if judge:
                self._evaluate(worlds, states, saved=keep)
        return states

    def _evaluate(self, worlds: Lockstep, states: State, *, saved: bool) -> None:
        """Judge; an environment that fails in that costs nothing of what was met and learnt."""
        try:
            self.recorder.evaluate(states)
        except DeFlowError:
            if not saved:
                self._save(worlds, states)
            raise

    def _chunk(
        self, worlds: Lockstep, guard: Guard, states: State, length: int
    ) -> tuple[State, Arrays]:
        """`length` steps of every member, and what their updates measured."""
        before, first = states, self.recorder.position.step
        updates, history = self.config.updates_per_step, []
        for step in range(first, first + length):
            states, metrics = self._step(worlds, states, step)
            history += [metrics] if metrics else []
        if not history:
            return states, {}
        fetched = jax.device_get(history)
        arrays = {name: np.concatenate([m[name] for m in fetched]) for name in fetched[0]}
        learnt = first + length - len(history)
        # What was lived through cannot be lived again: the last good state is the chunk's first.
        states = guard.check(
            before,
            states,
            arrays,
            self.online.phase.name,
            lambda number: max(learnt + number // updates, 0),
            lambda steps: before,
        )
        return states, arrays

    def _step(self, worlds: Lockstep, states: State, step: int) -> tuple[State, Any]:
        """Act, see what comes of it, remember it, learn."""
        online, times = self.online, self.played.seconds
        began = time.perf_counter()
        observations = self.transforms.observation(worlds.observations)
        actions = np.asarray(
            explore(
                self.family,
                states,
                observations,
                jnp.asarray(step),
                online.random_steps,
                self.spec,
            )
        )
        acted = time.perf_counter()
        met = worlds.step(actions)
        stepped = time.perf_counter()
        self.played.count(met)
        self.experience.add(self._learnable(met))
        reach = self.experience.reach() if step >= online.random_steps else None
        metrics = None
        if reach is not None:
            updates = self.config.updates_per_step
            states, metrics = learn(
                self.family,
                states,
                self.data,
                self.columns,
                self.experience.replay,
                reach,
                jnp.asarray(step * updates),
                online,
                self.index,
                updates,
            )
            states = jax.block_until_ready(states)  # type: ignore[no-untyped-call]
        times["acting"] += acted - began
        times["environment"] += stepped - acted
        times["updating"] += time.perf_counter() - stepped
        return states, metrics

    def _learnable(self, met: Steps) -> Steps:
        """A step in the units in which the agent learns."""
        seen, reward = self.transforms.observation, self.transforms.reward
        return replace(
            met,
            observations=seen(met.observations),
            next_observations=seen(met.next_observations),
            rewards=reward(met.rewards),
        )

    # Checkpoints -----------------------------------------------------------------------------

    def _save(self, worlds: Lockstep, states: State) -> None:
        books = {**self.experience.books(), "episodes": worlds.episodes.tolist()}
        self.recorder.save(states, {REPLAY: self.experience.arrays()}, {BOOKS: books})

    def _restore(self, worlds: Lockstep, sound: Path) -> None:
        """Transitions and books as the checkpoint holds them; then every unfinished episode is
        played again up to where it stood, which its seed and its actions allow."""
        books = checkpoint.read_meta(sound)[BOOKS]
        experience, members = self.experience, range(len(self.family.members))
        experience.restore(books, checkpoint.load(sound, experience.like(books), REPLAY))
        actions = [experience.unfinished(member) for member in members]
        arrived = worlds.resume(books["episodes"], actions)
        seen = self.transforms.observation(worlds.observations)
        strayed = [m for m in members if arrived[m] and not experience.leads_to(m, seen[m])]
        worlds.give_up(strayed)
        lost = np.array([m for m in members if m in strayed or not arrived[m]], np.int64)
        if len(lost):
            experience.end_episodes(lost)
            labels = ", ".join(self.family.members[member].label for member in lost)
            console.print(
                f"The environment of {labels} did not repeat its unfinished episode; it begins a "
                "new one, and keeps the transitions."
            )
