"""Many environments, stepped at once in worker processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deflow.core.closing import Closing
from deflow.core.errors import DeFlowError
from deflow.envs.board import Board, open_memory
from deflow.envs.make import EnvSpec
from deflow.envs.process import check, ending, start, stop
from deflow.envs.worker import DONE, MAKE, OPEN, RESET, STEP, own_slots

MAKING = 120.0
"""Seconds that a worker always has for making its environments: it starts and imports in them."""


class EnvPool(Closing):
    """`slots` environments in `workers` processes, stepped together.

    The processes start at once and make their environments while the caller goes on; the first use
    waits for them. Whatever a slot plays follows from (seed, episode) alone, so results do not
    depend on the number of workers. Use it as a context manager, or call `close`.

    `patience` is for how many seconds an answer of a worker is waited for (for its environments to
    be made, at least `MAKING`); None waits for ever.

    Raises `DeFlowError` where the environment cannot be made or used, where it fails (naming the
    episode), where a worker dies, and where one does not answer in time. The pool is closed then,
    and a worker that did not answer is killed.
    """

    def __init__(
        self, spec: EnvSpec, slots: int, workers: int, patience: float | None = None
    ) -> None:
        if slots < 1 or workers < 1:
            raise DeFlowError("An environment pool needs at least one slot and one worker.")
        self.spec = spec
        self.slots = slots
        self.workers = min(workers, slots)
        self.patience = patience
        self._memory = open_memory()
        self._board: Board | None = None
        self._episodes = np.full(slots, -1, np.int64)
        self._connections: list[Connection] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._allow("making")
        with self._closed_by_failure():
            for index in range(self.workers):
                connection, process = start("deflow.envs.worker", (self._memory,))
                self._connections.append(connection)
                self._processes.append(process)
                self._send(index, MAKE, (spec, slots, self.workers, index))

    @property
    def board(self) -> Board:
        """The shared arrays, one row for each slot; waits until the environments are made."""
        if self._board is None:
            self._ready()
        assert self._board is not None
        return self._board

    @property
    def act_dim(self) -> int:
        """Width of an action."""
        return int(self.board.actions.shape[1])

    def reset(self, seed: int, episodes: NDArray[np.int64]) -> None:
        """Begin the given episode in each slot (-1: leave the slot idle).

        The first observations are then in `board.observations`.
        """
        with self._closed_by_failure():
            self.start_reset(seed, episodes)
            self.finish_reset()

    def start_reset(self, seed: int, episodes: NDArray[np.int64]) -> None:
        """The first half of `reset`, which does not wait; `finish_reset` must follow."""
        self.board.next_episode[:] = episodes
        self._episodes[:] = episodes
        self.board.active[:] = episodes >= 0
        self._ask("beginning", RESET, seed)

    def finish_reset(self) -> None:
        """The second half of `reset`: wait until the episodes have begun."""
        self._collect()

    def step(self, actions: NDArray[np.floating[Any]], next_episodes: NDArray[np.int64]) -> None:
        """One step of every active slot, with actions [slots, act] clipped to [-1, 1].

        A slot whose episode ends begins its entry of `next_episodes` at once, or goes idle (-1).
        Rewards, flags and success of the step, and the observations after it (of the new episode
        where one began), are then in `board`.
        """
        with self._closed_by_failure():
            self.start_step(actions, next_episodes)
            self.finish_step()

    def start_step(
        self, actions: NDArray[np.floating[Any]], next_episodes: NDArray[np.int64]
    ) -> None:
        """The first half of `step`, which does not wait; `finish_step` must follow.

        Until then `board` is the workers'.
        """
        board = self.board
        np.clip(actions, -1, 1, out=board.actions, casting="same_kind")
        board.next_episode[:] = next_episodes
        self._ask("playing", STEP)

    def finish_step(self) -> None:
        """The second half of `step`: wait until every active slot has taken its step."""
        self._collect()
        board = self.board
        ended = board.active & (board.terminated | board.truncated)
        following = board.next_episode[ended]
        self._episodes[ended] = following
        board.active[ended] = following >= 0

    def close(self) -> None:
        """End the worker processes; safe to call twice."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            stop(process)
        if self._memory >= 0:
            os.close(self._memory)
        self._memory = -1
        self._connections, self._processes = [], []

    def _ready(self) -> None:
        with self._closed_by_failure():
            replies = self._collect()
            shape, act_dim = json.loads(replies[0])["widths"]
            self._board = Board(self._memory, self.slots, shape, act_dim)
        self._ask("making", OPEN)
        self._collect()

    def _ask(self, doing: str, task: str, argument: object = None) -> None:
        """Have every worker do something; `_collect` waits for their answers."""
        self._allow(doing)
        with self._closed_by_failure():
            for index in range(len(self._connections)):
                self._send(index, task, argument)

    def _allow(self, doing: str) -> None:
        """Note what the workers are about to do, and how long they may take."""
        least = MAKING if doing == "making" else 0.0
        self._doing = doing
        self._seconds = None if self.patience is None else max(self.patience, least)
        self._asked = time.monotonic()

    @contextlib.contextmanager
    def _closed_by_failure(self) -> Iterator[None]:
        """Replies may be outstanding after a failure, an interruption too: no further use."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _send(self, index: int, task: str, argument: object) -> None:
        try:
            self._connections[index].send((task, argument))
        except OSError as error:
            raise self._death(index) from error

    def _collect(self) -> list[bytes]:
        """One reply of each worker; a dead one is noticed at once, since its pipe closes."""
        if not self._connections:
            raise DeFlowError("This environment pool is closed; make a new one.")
        replies: dict[Connection, bytes] = {}
        with self._closed_by_failure():
            while len(replies) < len(self._connections):
                waiting = [c for c in self._connections if c not in replies]
                answered = wait(waiting, self._left())
                if not answered:
                    raise self._silence([self._connections.index(c) for c in waiting])
                for ready in answered:
                    assert isinstance(ready, Connection)
                    try:
                        reply = ready.recv_bytes()
                    except (EOFError, OSError) as error:
                        raise self._death(self._connections.index(ready)) from error
                    if reply != DONE:
                        check(json.loads(reply), self.spec.name)
                    replies[ready] = reply
        return [replies[connection] for connection in self._connections]

    def _left(self) -> float | None:
        """Seconds that remain for the answers; 0 still takes one that lies there already."""
        if self._seconds is None:
            return None
        return max(0.0, self._asked + self._seconds - time.monotonic())

    def _death(self, index: int) -> DeFlowError:
        how = ending(self._processes[index])
        advice = ", and fewer slots help where memory ran out" if self.slots > 1 else ""
        return DeFlowError(
            f"A worker process of '{self.spec.name}' died ({how}) while {self._task(index)}; "
            f"its last words are above{advice}."
        )

    def _silence(self, silent: list[int]) -> DeFlowError:
        for index in silent:
            self._processes[index].kill()
        return DeFlowError(
            f"A worker process of '{self.spec.name}' did not answer within {self._seconds:g} "
            f"seconds while {self._task(silent[0])}, and was killed; allow it more time where it "
            "is only slow."
        )

    def _task(self, index: int) -> str:
        """What a worker was asked to do, in words."""
        mine = own_slots(self.slots, self.workers, index)
        playing = [str(e) for e in self._episodes[mine.start : mine.stop] if e >= 0]
        if self._doing == "making" or not playing:
            return "making its environments"
        return f"{self._doing} episode{'s' * (len(playing) > 1)} {', '.join(playing)}"
