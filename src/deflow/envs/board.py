"""The memory that the pool and its workers share: one row for each slot."""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Board:
    """Arrays over one shared mapping of an unnamed file, so that nothing is left behind by a kill.

    The pool writes `actions`, `active` and `next_episode`; each worker writes the rest of the rows
    that are its own.
    """

    def __init__(self, handle: int, slots: int, workers: int, obs_dim: int, act_dim: int) -> None:
        fields: list[tuple[str, tuple[int, ...], DTypeLike]] = [
            ("rewards", (slots,), np.float64),
            ("success", (slots,), np.float64),  # NaN where the environment does not say
            ("seconds", (workers,), np.float64),
            ("next_episode", (slots,), np.int64),  # -1: none
            ("observations", (slots, obs_dim), np.float32),
            ("actions", (slots, act_dim), np.float32),
            ("active", (slots,), np.bool_),
            ("terminated", (slots,), np.bool_),
            ("truncated", (slots,), np.bool_),
        ]
        size = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for _, shape, dtype in fields)
        if os.fstat(handle).st_size < size:
            os.ftruncate(handle, size)
        memory = mmap.mmap(handle, size)
        arrays: dict[str, NDArray[np.generic]] = {}
        offset = 0
        for name, shape, dtype in fields:
            arrays[name] = np.ndarray(shape, dtype, buffer=memory, offset=offset)
            offset += arrays[name].nbytes
        self.rewards: NDArray[np.float64] = arrays["rewards"]  # type: ignore[assignment]
        self.success: NDArray[np.float64] = arrays["success"]  # type: ignore[assignment]
        self.seconds: NDArray[np.float64] = arrays["seconds"]  # type: ignore[assignment]
        self.next_episode: NDArray[np.int64] = arrays["next_episode"]  # type: ignore[assignment]
        self.observations: NDArray[np.float32] = arrays["observations"]  # type: ignore[assignment]
        self.actions: NDArray[np.float32] = arrays["actions"]  # type: ignore[assignment]
        self.active: NDArray[np.bool_] = arrays["active"]  # type: ignore[assignment]
        self.terminated: NDArray[np.bool_] = arrays["terminated"]  # type: ignore[assignment]
        self.truncated: NDArray[np.bool_] = arrays["truncated"]  # type: ignore[assignment]


def open_memory() -> int:
    """A file descriptor of an unnamed file, in memory where the system offers that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("deflow-envs")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
