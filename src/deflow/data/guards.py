"""The memory that reading a file takes, judged by what the file declares."""

from __future__ import annotations

from pathlib import Path

from deflow.core.errors import DeFlowError
from deflow.core.memory import available_memory

READING = 3
"""Bytes that reading takes at its peak for each byte that a file declares: an array as it is in the
file, another as float32, and what is compared and joined on the way. Peaks of 1.3 to 2.8 were
measured for float32 and float64; the rest is room."""


def require_memory(path: Path, declared: int, held: int = 0) -> None:
    """Raise `DeFlowError` where reading would take more bytes than the machine can give.

    Args:
        path: for the message.
        declared: bytes of all numbers that are to be read.
        held: how many of them are in memory already.
    """
    need, available = READING * declared, available_memory()
    if need - held > available:
        raise DeFlowError(
            f"{path} declares {declared / 2**30:,.1f} GiB of numbers, which take up to "
            f"{need / 2**30:,.1f} GiB to read, and this machine has {available / 2**30:,.1f} GiB "
            "of memory available; split it or drop what is not needed."
        )
