"""Starting a worker process and hearing from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from deflow.core.errors import DeFlowError


def start(
    module: str, handles: tuple[int, ...] = (), variables: Mapping[str, str] | None = None
) -> tuple[Connection, subprocess.Popen[bytes]]:
    """Run `python -m module CONNECTION HANDLES...` and return our end of its connection.

    The process inherits the file descriptors and nothing else of ours, so the connection closes at
    either end as soon as the other process is gone, however it ends.
    """
    ours, theirs = Pipe()
    # A plain interpreter rather than multiprocessing's: that one would import the caller's script
    # again, and with it jax.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "PYTHONSAFEPATH": "1",
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        **(variables or {}),
    }
    with theirs:
        inherited = (theirs.fileno(), *handles)
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, inherited)],
            pass_fds=inherited,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=2,  # stdout is for results; whatever an environment prints is not one
        )
    return ours, process


def stop(process: subprocess.Popen[bytes]) -> None:
    """Wait a moment for a process whose connection is closed, then kill it."""
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def ending(process: subprocess.Popen[bytes]) -> str:
    """How a process that closed its connection came to its end, in words."""
    stop(process)
    code = process.returncode
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"


def report(error: Exception, where: str) -> bytes:
    """What a worker sends when it cannot go on; a mistake of the user's keeps its own sentence."""
    if isinstance(error, DeFlowError):
        return json.dumps({"error": str(error)}).encode()
    traceback.print_exc()
    last = traceback.format_exception_only(error)[-1].strip()
    return json.dumps({"error": f"failed ({where}): {last}", "prefix": True}).encode()


def check(reply: dict[str, Any], name: str) -> None:
    """Raise the `DeFlowError` that a worker's `report` holds, if it is one."""
    if "error" in reply:
        raise DeFlowError(
            (f"The environment '{name}' " if "prefix" in reply else "") + reply["error"]
        )
