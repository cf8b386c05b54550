"""Episodes played in worker processes, one file each, whatever the number of workers.

A worker is handed an index, plays that episode, writes its file and says so. Workers leave as soon
as their parent does, even where it was killed.
"""

from __future__ import annotations

import hashlib
import multiprocessing as mp
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from deflow.core.errors import DeFlowError
from deflow.data.npz import write_npz
from deflow.data.recipes import Collector, Episode, Recipe, make_collector
from deflow.data.simulator import ignore_noise

if TYPE_CHECKING:
    from deflow.data.oracles_ant import AntExpert

_ATTEMPTS = 100
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def episode_seed(dataset: str, seed: int, index: int, attempt: int) -> np.random.SeedSequence:
    """The seed of one attempt at one episode; training and validation episodes share the count.

    A visual set holds the same episodes as the set of its states.
    """
    digest = hashlib.sha256(f"{dataset.removeprefix('visual-')}/{seed}".encode()).digest()
    return np.random.SeedSequence(int.from_bytes(digest[:16], "little"), spawn_key=(index, attempt))


def episode_file(folder: Path, index: int) -> Path:
    """Where the episode of this index is kept until all are there."""
    return folder / f"episode-{index:06d}.npz"


def play_episode(collector: Collector, dataset: str, seed: int, index: int) -> Episode:
    """Play episode `index`, again with the next attempt's seed while the recipe rejects it."""
    for attempt in range(_ATTEMPTS):
        episode = collector.collect(episode_seed(dataset, seed, index, attempt))
        if episode is not None:
            return episode
    raise RuntimeError(f"{_ATTEMPTS} attempts in a row were rejected by the recipe")


def play_all(
    recipe: Recipe,
    *,
    indices: Sequence[int],
    workers: int,
    seed: int,
    folder: Path,
    expert: AntExpert | None = None,
) -> Iterator[int]:
    """Play the episodes of `indices` into `folder`; yields each index once its file is there.

    `expert` walks where the recipe needs one.

    Raises:
        DeFlowError: a worker failed or was killed; finished episodes stay.
    """
    todo = iter(indices)
    crew = [_start(recipe, seed, folder, expert) for _ in range(min(workers, len(indices)))]
    processes = {connection: process for process, connection in crew}
    playing: dict[Connection, int] = {}
    try:
        for connection in processes:
            playing[connection] = next(todo)
            connection.send(playing[connection])
        while playing:
            for ready in wait(list(playing)):
                connection = cast(Connection, ready)
                index = playing.pop(connection)
                following = next(todo, None)
                try:
                    failure = connection.recv()
                    if following is not None:
                        playing[connection] = following
                        connection.send(following)
                except (EOFError, OSError):
                    processes[connection].join()
                    code = processes[connection].exitcode
                    raise _error(recipe, index, f"its worker ended with exit code {code}") from None
                if failure is not None:
                    last = failure.strip().rsplit("\n", 1)[-1]
                    raise _error(recipe, index, last) from RuntimeError(failure)
                yield index
    finally:
        for connection, process in processes.items():
            process.terminate()
            process.join()
            connection.close()


def _error(recipe: Recipe, index: int, reason: str) -> DeFlowError:
    return DeFlowError(
        f"Episode {index} of {recipe.dataset} failed in a worker process ({reason}); what is "
        "finished is kept, so the same command goes on from there."
    )


def _start(
    recipe: Recipe, seed: int, folder: Path, expert: AntExpert | None
) -> tuple[BaseProcess, Connection]:
    context = mp.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(
        target=_work,
        args=(there, recipe, seed, folder, expert),
        daemon=True,
        name="deflow-generate",
    )
    with _one_thread():
        process.start()
    there.close()
    return process, here


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for each library that a new process loads: the processes share the cores."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(
    connection: Connection, recipe: Recipe, seed: int, folder: Path, expert: AntExpert | None
) -> None:
    """A worker's life: an index in, `None` or a traceback out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent hears it too, and ends us.
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    ignore_noise()
    collector: Collector | None = None
    while True:
        index = connection.recv()
        failure = None
        try:
            collector = collector or make_collector(recipe, expert)
            episode = play_episode(collector, recipe.dataset, seed, index)
            write_npz(episode_file(folder, index), episode)
        except Exception:
            failure = traceback.format_exc()
        connection.send(failure)


def _leave_with_parent() -> None:
    parent = mp.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
