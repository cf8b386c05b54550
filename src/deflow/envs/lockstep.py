"""Environments in which a family of runs learns: one for each run, stepped at the same time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deflow.core.closing import Closing
from deflow.core.errors import DeFlowError
from deflow.core.progress import console
from deflow.envs.make import EnvSpec
from deflow.envs.pool import EnvPool

APART = 2**32
"""Added to a run's seed, so that no episode that it learns from is one that it is evaluated in."""

_IDLE = np.array([-1])


@dataclass(frozen=True)
class Steps:
    """One step of every member, a row each.

    Attributes:
        observations: [members, obs], before the step.
        actions: [members, act], as taken, so clipped to [-1, 1].
        rewards: [members]; NaN where lost.
        masks: [members]: 0 where the episode terminated, and 1 elsewhere, at a time limit too; NaN
            where lost.
        next_observations: [members, obs], after the step, at an episode's end its very last one;
            NaN where lost.
        ended: [members], whether the episode terminated or ran into its time limit.
        lost: [members], whether the environment failed in this step; its episode is given up.
        success: [members], `info["success"]` of the step; NaN where the environment does not say.
        episodes: [members], the number of the episode that the step belongs to.
        returns: [members], undiscounted, of an episode that ended here; NaN elsewhere.
        lengths: [members], the steps taken in an episode that ended or was lost; 0 elsewhere.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    masks: NDArray[np.float32]
    next_observations: NDArray[np.float32]
    ended: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    success: NDArray[np.float64]
    episodes: NDArray[np.int64]
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]


class Lockstep(Closing):
    """One environment for each run (member) of a family, each in a worker process of its own.

    Episode e of a member follows from (its seed + `APART`, e) and its actions alone, so members do
    not depend on one another, and an episode can be played again (`resume`). Use it as a context
    manager, or call `close`.

    A worker that raises, dies, or does not answer for `patience` seconds is ended. Its episode is
    given up, a warning says so, and a new process begins the member's next one; the others are as
    they would have been. After `limit` failures of a member in a row, with no whole episode in
    between, `DeFlowError` is raised, and so it is at once where an environment cannot be made at
    first or shows frames. Everything is closed then.

    Attributes:
        episodes: [members], the number of the episode that each is playing.
        lengths: [members], the steps taken in it.
        failures: [members], all that were survived.
        failures_in_a_row: [members], those since the last episode that came to its end.
        seconds: time spent on the environments, starting processes anew included.
    """

    def __init__(
        self,
        spec: EnvSpec,
        seeds: Sequence[int],
        *,
        labels: Sequence[str] = (),
        patience: float = 60.0,
        limit: int = 10,
    ) -> None:
        if not seeds or not patience > 0 or limit < 1:
            raise DeFlowError("Learning online needs a seed, and a patience and limit above 0.")
        self.spec, self.seeds, self.members = spec, tuple(seeds), len(seeds)
        self.labels = tuple(labels) or tuple(f"seed{seed}" for seed in seeds)
        self.patience, self.limit = patience, limit
        self.episodes, self.lengths = np.zeros((2, self.members), np.int64)
        self.failures, self.failures_in_a_row = np.zeros((2, self.members), np.int64)
        self.seconds = 0.0
        self._returns = np.zeros(self.members)
        self._observations: NDArray[np.float32] | None = None
        self._pools: dict[int, EnvPool] = {}
        self._open, self._again = True, False
        with self._at_work():
            for member in range(self.members):
                self._make(member)

    @property
    def observations(self) -> NDArray[np.float32]:
        """What each member sees now, [members, obs]: what its next action answers to."""
        if self._observations is None:
            raise DeFlowError("No episode has begun in these environments; begin one first.")
        return self._observations

    def begin(self, episodes: Sequence[int] | None = None) -> None:
        """Begin each member's first episode, or the one of the given number."""
        with self._at_work():
            boards = [self._pools[member].board for member in range(self.members)]
            if boards[0].observations.ndim != 2:
                raise DeFlowError(
                    f"'{self.spec.name}' shows frames, and learning online from frames is not "
                    "supported; take the environment's vector observations."
                )
            self._act_dim = boards[0].actions.shape[1]
            self._observations = np.concatenate([board.observations for board in boards])
            self.episodes[:] = 0 if episodes is None else episodes
            self._begin(range(self.members))

    def step(self, actions: NDArray[np.floating[Any]]) -> Steps:
        """One step of every member, with actions [members, act].

        Where an episode ends or is lost, the member's next one begins, and `observations` shows it.
        Raises `DeFlowError` where an action is not finite.
        """
        with self._at_work():
            return self._advance(range(self.members), self._checked(actions))

    def resume(
        self, episodes: Sequence[int], actions: Sequence[NDArray[np.floating[Any]]]
    ) -> list[bool]:
        """Play each member's unfinished episode again, as after a kill.

        Member i begins `episodes[i]` and takes `actions[i]` [n_i, act]. Returns whether each
        arrived at their end. One does not where the episode ended on the way or its worker failed,
        and then a later episode has begun.
        """
        self._again = True
        self.begin(episodes)
        with self._at_work():
            going = [bool(now == then) for now, then in zip(self.episodes, episodes, strict=True)]
            taken = np.zeros((self.members, self._act_dim), np.float32)
            for step in range(max(map(len, actions))):
                playing = [m for m in range(self.members) if going[m] and step < len(actions[m])]
                for member in playing:
                    taken[member] = actions[member][step]
                steps = self._advance(playing, self._checked(taken))
                for member in playing:
                    going[member] = not (steps.ended[member] or steps.lost[member])
            self._again = False
            return going

    def give_up(self, members: Sequence[int]) -> None:
        """Leave the episodes of some members unfinished, and begin their next ones."""
        with self._at_work():
            self.episodes[members] += 1
            self._observations = self.observations.copy()
            self._begin(members)

    def close(self) -> None:
        """End the worker processes; safe to call twice."""
        self._open = False
        for pool in self._pools.values():
            pool.close()

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Answers may be outstanding after a failure, an interruption too: no further use."""
        if not self._open:
            raise DeFlowError("These environments are closed; make new ones.")
        started = time.perf_counter()
        try:
            yield
        except BaseException:
            self.close()
            raise
        finally:
            self.seconds += time.perf_counter() - started

    def _checked(self, actions: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Actions as they will be taken, or the reason why they cannot be."""
        shape = (self.observations.shape[0], self._act_dim)
        if actions.shape != shape:
            raise DeFlowError(f"The policies gave actions of shape {actions.shape}, not {shape}.")
        bad = ~np.isfinite(actions).all(axis=1)
        if bad.any():
            member = int(bad.argmax())
            raise DeFlowError(
                f"The policy of {self.labels[member]} gave an action that is not finite in episode "
                f"{self.episodes[member]}; its parameters have diverged."
            )
        taken: NDArray[np.float32] = np.clip(actions, -1, 1).astype(np.float32)
        return taken

    def _advance(self, members: Sequence[int], actions: NDArray[np.float32]) -> Steps:
        """One step of some members; the rows of the others mean nothing."""
        before, episodes = self.observations, self.episodes.copy()
        done = self._together(
            members,
            lambda member: self._pools[member].start_step(actions[member : member + 1], _IDLE),
            lambda member: self._pools[member].finish_step(),
        )
        after = np.full_like(before, np.nan)
        rewards, masks = np.full((2, self.members), np.nan, np.float32)
        success, returns = np.full((2, self.members), np.nan)
        ended, lost = np.zeros((2, self.members), bool)
        lengths = np.zeros(self.members, np.int64)
        if len(done) < len(members):
            lost[[member for member in members if member not in done]] = True
        self._observations = before.copy()
        for member in done:
            board = self._pools[member].board
            self._observations[member] = after[member] = board.observations[0]
            rewards[member] = board.rewards[0]
            masks[member] = not board.terminated[0]
            ended[member] = board.terminated[0] or board.truncated[0]
            success[member] = board.success[0]
            self._returns[member] += board.rewards[0]
            self.lengths[member] += 1
        self.failures_in_a_row[ended] = 0
        over = ended | lost
        if over.any():
            returns[ended] = self._returns[ended]
            lengths[over] = self.lengths[over]
            self.episodes[ended] += 1
            self._begin(np.flatnonzero(over).tolist())
        return Steps(
            before, actions, rewards, masks, after, ended, lost, success, episodes, returns, lengths
        )

    def _begin(self, members: Sequence[int]) -> None:
        """Begin the episode that `episodes` says, or the first after it that does not fail."""
        while members:
            self.lengths[members] = 0
            self._returns[members] = 0
            begun = self._together(members, self._make, self._start_episode, self._finish_episode)
            members = [member for member in members if member not in begun]

    def _make(self, member: int) -> None:
        if member not in self._pools:
            self._pools[member] = EnvPool(self.spec, 1, 1, self.patience)

    def _start_episode(self, member: int) -> None:
        seed = self.seeds[member] + APART
        self._pools[member].start_reset(seed, self.episodes[member : member + 1])

    def _finish_episode(self, member: int) -> None:
        pool = self._pools[member]
        pool.finish_reset()
        self.observations[member] = pool.board.observations[0]

    def _together(self, members: Sequence[int], *parts: Callable[[int], None]) -> Sequence[int]:
        """Each part for every member before the next, so that all workers are at work at once;
        returns the members that did not fail."""
        for part in parts:
            members = [member for member in members if self._survives(part, member)]
        return members

    def _survives(self, part: Callable[[int], None], member: int) -> bool:
        try:
            part(member)
        except DeFlowError as error:
            self._lose(member, error)
            return False
        return True

    def _lose(self, member: int, cause: DeFlowError) -> None:
        """Count a failure and say so; the next episode is then to begin, in a new process."""
        self._pools.pop(member, None)  # it closed itself
        self.failures[member] += 1
        self.failures_in_a_row[member] += 1
        episode, steps = self.episodes[member], self.lengths[member]
        self.episodes[member] += 1
        count = self.failures_in_a_row[member]
        if count >= self.limit:
            raise DeFlowError(
                f"The environment of {self.labels[member]} failed {count} times in a row, the last "
                f"time in episode {episode}; mend it, then resume the run: {cause}"
            ) from cause
        fate = "which was being played again" if self._again else f"steps dropped: {steps}"
        console.print(
            f"{self.labels[member]} gives up episode {episode} ({fate}) and "
            f"begins the next one in a new process; failure {count} in a row of at most "
            f"{self.limit}: {cause}",
            style="yellow",
        )
