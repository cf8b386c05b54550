"""What huge pages spare an online step: `python benchmarks/huge_pages.py`.

XLA allocates a program's temporaries at each call, which online is each update. What exceeds 32 MiB
(Cal-QL's conservative term, or a family's activations) glibc takes from the kernel and gives back
each time, a page fault for every 4 KiB. `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` makes it ask for
pages of 2 MiB. Here Cal-QL, and DeFlow with one seed and with four, step on cube-single task 1
without it and with it, 3x256, each in a process of its own. Linux with glibc 2.35 or newer, and a
quiet machine: some seven minutes. Writes `benchmarks/results/huge_pages.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from committed import made_by, write_result
from deflow.agents.registry import from_settings
from deflow.cli.doctor import ASKING, HUGE_PAGES
from deflow.data.generate import generate
from online_step import SIZES, TIMED, WARM, measured

STEPPING = (("calql", 1), ("deflow", 1), ("deflow", 4))
"""Systems and how many seeds of each."""


def steps_of(name: str, seeds: int, options: argparse.Namespace) -> dict[str, Any]:
    """This process's online steps of one system, and its page faults from beginning to end."""
    agent = replace(from_settings(name, {}), hidden=SIZES["3x256"])  # type: ignore[call-arg]
    row = measured(agent, seeds, options)
    return {**row, "page_faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt}


def in_a_process(name: str, seeds: int, huge: bool, options: argparse.Namespace) -> dict[str, Any]:
    """The same in a fresh process, since glibc reads its tunables only as one begins."""
    tunables = {"GLIBC_TUNABLES": ASKING if huge else ""}
    words = [sys.executable, __file__, "--only", name, str(seeds)]
    words += ["--data-dir", str(options.data_dir)]
    done = subprocess.run(words, env={**os.environ, **tunables}, stdout=subprocess.PIPE, check=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"system": name, "huge_pages": huge, **row}


def main() -> None:
    """Each system without huge pages and with them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("runs/schedules/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/huge_pages.json"))
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        name, seeds = options.only
        print(json.dumps(steps_of(name, int(seeds), options)))
        return
    kernel = HUGE_PAGES.read_text().strip()
    generate("cube-single-play-v0", episodes=300, workers=2, data_dir=options.data_dir)
    rows = []
    for name, seeds in STEPPING:
        for huge in (False, True):
            rows.append(in_a_process(name, seeds, huge, options))
            print(rows[-1], flush=True)
    about = made_by(
        "python benchmarks/huge_pages.py", {"name": "cube-single-play-v0", "episodes": 300}
    )
    document = {
        "warm_steps": WARM,
        "timed_steps": TIMED,
        "transparent_hugepage": kernel,
        "rows": rows,
        "provenance": about,
    }
    write_result(options.out, document)


if __name__ == "__main__":
    main()
