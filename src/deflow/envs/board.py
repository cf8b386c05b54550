"""The memory that the pool and its workers share: one row for each slot."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Board:
    """A table over one shared mapping of an unnamed file, so that a kill leaves nothing behind.

    The pool writes `actions`, `active` and `next_episode`; each worker writes the rest of the rows
    that are its own. Observations are vectors, or stacks of frames in bytes.
    """

    def __init__(self, handle: int, slots: int, shape: Sequence[int], act_dim: int) -> None:
        row = np.dtype(
            [
                ("observations", np.uint8 if len(shape) == 3 else np.float32, tuple(shape)),
                ("actions", np.float32, (act_dim,)),
                ("rewards", np.float64),
                ("success", np.float64),  # NaN where the environment does not say
                ("seconds", np.float64),  # a worker's stepping, all in the first of its rows
                ("next_episode", np.int64),  # -1: none
                ("active", np.bool_),
                ("terminated", np.bool_),
                ("truncated", np.bool_),
            ],
            align=True,
        )
        if os.fstat(handle).st_size < slots * row.itemsize:
            os.ftruncate(handle, slots * row.itemsize)
        memory = mmap.mmap(handle, slots * row.itemsize)
        rows = np.ndarray(slots, row, buffer=memory)
        self.observations: NDArray[Any] = rows["observations"]
        self.actions: NDArray[np.float32] = rows["actions"]
        self.rewards: NDArray[np.float64] = rows["rewards"]
        self.success: NDArray[np.float64] = rows["success"]
        self.seconds: NDArray[np.float64] = rows["seconds"]
        self.next_episode: NDArray[np.int64] = rows["next_episode"]
        self.active: NDArray[np.bool_] = rows["active"]
        self.terminated: NDArray[np.bool_] = rows["terminated"]
        self.truncated: NDArray[np.bool_] = rows["truncated"]


def open_memory() -> int:
    """A file descriptor of an unnamed file, in memory where the system offers that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("deflow-envs")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
