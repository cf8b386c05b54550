"""A worker process: it steps its share of the slots, one after the other.

Started by the pool as `python -m deflow.envs.worker CONNECTION MEMORY` with two inherited file
descriptors. It ends when the pool closes its end of the connection, or dies.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deflow.core.frames import STACK
from deflow.envs.board import Board
from deflow.envs.make import EnvSpec, env_shapes, make_env
from deflow.envs.process import report
from deflow.envs.replicate import make_many
from deflow.envs.stacking import draw_without_display, make_stacked

MAKE, OPEN, RESET, STEP = "make", "open", "reset", "step"
"""What the pool may ask for, in the order in which it asks."""

DONE = b"{}"


class Share:
    """The environments of one worker, and what each is playing."""

    def __init__(self, memory: int) -> None:
        self.doing = "being made"
        self._memory = memory
        self._episodes: list[int] = []
        self._steps: list[int] = []
        self._seed = 0

    def make(self, order: tuple[EnvSpec, int, int, int]) -> bytes:
        """Make the environments that fall to worker `index`; answers with their widths."""
        spec, self._slots, workers, index = order
        mine = own_slots(self._slots, workers, index)
        draw_without_display(spec)
        env = make_env(spec)
        shape, actions = env_shapes(env)
        if len(shape) == 3:
            self._envs = make_stacked(env, spec, len(mine))
            shape = (*shape[:2], STACK * shape[2])
        else:
            self._envs = make_many(env, spec, len(mine))
        self._widths = (shape, actions)
        self._first = mine.start
        self._episodes = [-1] * len(mine)
        self._steps = [0] * len(mine)
        return json.dumps({"widths": self._widths}).encode()

    def open(self, _: None) -> bytes:
        """Look at the shared memory, which the pool has given its size."""
        self._board = Board(self._memory, self._slots, *self._widths)
        return DONE

    def reset(self, seed: int) -> bytes:
        """Begin the next episode in every slot that has one."""
        self._seed = seed
        for i in range(len(self._envs)):
            if self._board.next_episode[self._first + i] >= 0:
                self._begin(i)
        return DONE

    def step(self, _: None) -> bytes:
        """One step in every active slot; an episode that ends gives way to the slot's next one."""
        started = time.perf_counter()
        board = self._board
        for i, env in enumerate(self._envs):
            slot = self._first + i
            if not board.active[slot]:
                continue
            self._steps[i] += 1
            self.doing = f"episode {self._episodes[i]}, step {self._steps[i]}"
            observation, reward, terminated, truncated, info = env.step(board.actions[slot].copy())
            if not np.isfinite(_shortened(reward, np.float32)):
                raise FloatingPointError(f"its reward is {reward}")
            board.rewards[slot] = reward
            board.terminated[slot] = terminated
            board.truncated[slot] = truncated
            board.success[slot] = info.get("success", math.nan)
            if (terminated or truncated) and board.next_episode[slot] >= 0:
                self._begin(i)
            else:
                self._show(slot, observation)
        board.seconds[self._first] += time.perf_counter() - started
        return DONE

    def _begin(self, i: int) -> None:
        slot = self._first + i
        self._episodes[i] = int(self._board.next_episode[slot])
        self._steps[i] = 0
        self.doing = f"episode {self._episodes[i]}, reset"
        self._show(slot, self._envs[i].reset(self._seed, self._episodes[i]))

    def _show(self, slot: int, observation: Any) -> None:
        """One number that is not finite, learned from, would spoil all that a policy knows."""
        seen = self._board.observations
        shown = _shortened(observation, seen.dtype)
        if not np.isfinite(shown).all():
            raise FloatingPointError("what it shows is not finite")
        seen[slot] = shown


def _shortened(values: Any, dtype: Any) -> NDArray[Any]:
    """Numbers as they are learnt from; one that is too large for that becomes infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(dtype)


def serve(connection: Connection, memory: int) -> None:
    """Do what the pool asks until it closes the connection, or something fails."""
    share = Share(memory)
    tasks: dict[str, Callable[[Any], bytes]] = {
        MAKE: share.make,
        OPEN: share.open,
        RESET: share.reset,
        STEP: share.step,
    }
    with contextlib.suppress(EOFError, OSError):  # the pool is gone
        while True:
            task, argument = connection.recv()
            try:
                answer = tasks[task](argument)
            except Exception as error:
                connection.send_bytes(report(error, share.doing))
                return
            connection.send_bytes(answer)


def own_slots(slots: int, workers: int, index: int) -> range:
    """The contiguous share of the slots that falls to one worker."""
    return range(index * slots // workers, (index + 1) * slots // workers)


def main() -> None:
    """Serve the pool whose file descriptors stand on the command line."""
    # Ctrl-C reaches the whole process group; the pool decides, and closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]))


if __name__ == "__main__":
    main()
