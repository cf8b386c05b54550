"""Do generated sets load through OGBench's own loader, and are they the same for any worker count?

    python benchmarks/generated_sets.py

Makes each set with one worker and with two, compares the files' checksums, reads them with
`ogbench.make_env_and_datasets`, and writes `benchmarks/results/generated_sets.json`.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deflow.core.files import write_json
from deflow.data.generate import generate
from deflow.data.provenance import file_entry, validation_file
from deflow.data.simulator import ignore_noise

SETS = (
    "cube-single-play-v0",
    "cube-double-play-v0",
    "scene-play-v0",
    "puzzle-3x3-play-v0",
    "scene-noisy-v0",
)
EPISODES = 20
SEED = 0
RESULTS = Path(__file__).parent / "results" / "generated_sets.json"


def main() -> None:
    """Examine every set and write the results."""
    ignore_noise()
    report: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "episodes": EPISODES,
        "seed": SEED,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("ogbench", "mujoco", "gymnasium", "numpy")},
        },
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "load": os.getloadavg()},
        "sets": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for dataset in SETS:
            report["sets"][dataset] = _examine(dataset, Path(folder))
    report["all_identical"] = all(entry["identical"] for entry in report["sets"].values())
    RESULTS.parent.mkdir(exist_ok=True)
    write_json(RESULTS, report)
    print(RESULTS.read_text())


def _examine(dataset: str, folder: Path) -> dict[str, Any]:
    import ogbench

    entry: dict[str, Any] = {}
    checksums = []
    for workers in (1, 2):
        home = folder / f"{workers}-workers"
        start = time.perf_counter()
        target = generate(dataset, episodes=EPISODES, workers=workers, seed=SEED, data_dir=home)
        seconds = time.perf_counter() - start
        files = {path.name: file_entry(path) for path in (target, validation_file(target))}
        steps = (EPISODES + EPISODES // 10) * 1001
        entry[f"{workers}_workers"] = {
            "seconds_with_start_up": round(seconds, 2),
            "steps_per_second": round(steps / seconds),
            "files": files,
        }
        checksums.append(files)
    entry["identical"] = checksums[0] == checksums[1]
    name = dataset.removesuffix("-v0") + "-singletask-v0"
    _, train, validation = ogbench.make_env_and_datasets(
        name, dataset_dir=str(folder / "2-workers"), add_info=True
    )
    entry["as_ogbench_loads_it"] = {
        split: {key: f"{array.dtype} {list(array.shape)}" for key, array in arrays.items()}
        for split, arrays in (("train", train), ("validation", validation))
    }
    return entry


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
