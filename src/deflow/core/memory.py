"""How much memory there is."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_MEMBERSHIP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


class _Names(NamedTuple):
    """The files of a control group: its limit, what it holds, and in its statistics what of that
    are files kept in passing, which give way when memory is asked for."""

    limit: str
    held: str
    passing: str


_V1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Names("memory.max", "memory.current", "inactive_file")


def available_memory() -> int:
    """Bytes that may still be taken without swapping, and within the container's limit."""
    return min([_machine(), *_groups()])


def _machine() -> int:
    with contextlib.suppress(OSError), open("/proc/meminfo") as file:
        if match := re.search(r"^MemAvailable:\s+(\d+) kB", file.read(), re.MULTILINE):
            return int(match[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _groups() -> Iterator[int]:
    """What each control group of this process that has a limit may still take.

    A group's limit binds all below it, so every group above counts. Inside a container the group
    that the process is told may not be there, and the root of those that are is the container's.
    """
    for line in _text(_MEMBERSHIP).splitlines():
        _, controllers, place = line.split(":", 2)
        if not controllers:
            root, names = _GROUPS, _V2
        elif "memory" in controllers.split(","):
            root, names = _GROUPS / "memory", _V1
        else:
            continue
        inner = root / place.strip("/")
        for group in (inner, *inner.parents):
            if group.is_relative_to(root):
                yield from _room(group, names)


def _room(group: Path, names: _Names) -> Iterator[int]:
    with contextlib.suppress(ValueError):  # No such file, or the word "max": no limit.
        left = int(_text(group / names.limit)) - int(_text(group / names.held))
        passing = re.search(rf"^{names.passing} (\d+)$", _text(group / "memory.stat"), re.MULTILINE)
        yield max(left + (int(passing[1]) if passing else 0), 0)


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""
