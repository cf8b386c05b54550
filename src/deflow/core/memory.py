"""How much memory there is."""

from __future__ import annotations

import contextlib
import os
import re


def available_memory() -> int:
    """Bytes that may still be taken without swapping."""
    with contextlib.suppress(OSError), open("/proc/meminfo") as file:
        if match := re.search(r"^MemAvailable:\s+(\d+) kB", file.read(), re.MULTILINE):
            return int(match[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
