"""A worker process: it steps its share of the slots, one after the other.

Started by the pool as `python -m deflow.envs.worker CONNECTION MEMORY` with two inherited file
descriptors. It ends when the pool closes its end of the connection, or dies.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from multiprocessing.connection import Connection

from deflow.envs.board import Board
from deflow.envs.make import EnvSpec, make_env, validate_env
from deflow.envs.process import report
from deflow.envs.replicate import make_many
from deflow.envs.seeded import SeededEnv

DONE = b"done"
RESET = b"reset"
STEP = b"step"


class Share:
    """The environments of one worker, and what each is playing."""

    def __init__(self, envs: list[SeededEnv], board: Board, first: int, index: int) -> None:
        self._envs = envs
        self._board = board
        self._first = first
        self._index = index
        self._episodes = [-1] * len(envs)
        self._steps = [0] * len(envs)
        self._seed = 0
        self.playing = ""

    def reset(self, seed: int) -> None:
        """Begin the next episode in every slot that has one."""
        self._seed = seed
        for i in range(len(self._envs)):
            if self._board.next_episode[self._first + i] >= 0:
                self._begin(i)

    def step(self) -> None:
        """One step in every active slot; an episode that ends gives way to the slot's next one."""
        started = time.perf_counter()
        board = self._board
        for i, env in enumerate(self._envs):
            slot = self._first + i
            if not board.active[slot]:
                continue
            self._steps[i] += 1
            self.playing = f"episode {self._episodes[i]}, step {self._steps[i]}"
            observation, reward, terminated, truncated, info = env.step(board.actions[slot].copy())
            board.rewards[slot] = reward
            board.terminated[slot] = terminated
            board.truncated[slot] = truncated
            board.success[slot] = info.get("success", math.nan)
            if (terminated or truncated) and board.next_episode[slot] >= 0:
                self._begin(i)
            else:
                board.observations[slot] = observation
        board.seconds[self._index] += time.perf_counter() - started

    def _begin(self, i: int) -> None:
        slot = self._first + i
        self._episodes[i] = int(self._board.next_episode[slot])
        self._steps[i] = 0
        self.playing = f"episode {self._episodes[i]}, reset"
        self._board.observations[slot] = self._envs[i].reset(self._seed, self._episodes[i])


def serve(connection: Connection, memory: int) -> None:
    """Make the environments, then obey the pool until it closes the connection."""
    share: Share | None = None
    try:
        spec, slots, workers, index = connection.recv()
        share = _set_up(connection, memory, spec, slots, workers, index)
        while True:
            message = connection.recv_bytes()
            if message == STEP:
                share.step()
            else:
                share.reset(int(message[len(RESET) :]))
            connection.send_bytes(DONE)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        where = share.playing if share else "being made"
        connection.send_bytes(report(error, where))


def own_slots(slots: int, workers: int, index: int) -> range:
    """The contiguous share of the slots that falls to one worker."""
    return range(index * slots // workers, (index + 1) * slots // workers)


def _set_up(
    connection: Connection, memory: int, spec: EnvSpec, slots: int, workers: int, index: int
) -> Share:
    mine = own_slots(slots, workers, index)
    first = make_env(spec)
    obs_dim, act_dim = validate_env(first)
    envs = make_many(first, spec, len(mine))
    connection.send_bytes(json.dumps({"obs_dim": obs_dim, "act_dim": act_dim}).encode())
    connection.recv_bytes()  # the pool has given the memory its size
    return Share(envs, Board(memory, slots, workers, obs_dim, act_dim), mine.start, index)


def main() -> None:
    """Serve the pool whose file descriptors stand on the command line."""
    # Ctrl-C reaches the whole process group; the pool decides, and closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]))


if __name__ == "__main__":
    main()
