"""Which reading of the intrinsic action variance is the published one?

    python benchmarks/iav_choices.py

Generates cube-double-play-v0 and puzzle-3x3-play-v0 (1000 episodes each), takes the variance under
every choice that the paper leaves open, over 10,000 states, and writes them beside the published
0.013 and 0.007 to `benchmarks/results/iav.json`. Choices are ordered by how far they are from both
numbers, as a factor. What was generated, or measured with the same options, is not done again.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from committed import made_by, write_result
from deflow.data.generate import generate
from deflow.data.iav import choices_table
from deflow.data.ogbench import read_set, to_dataset
from deflow.data.provenance import file_entry

PUBLISHED = {"cube-double-play-v0": 0.013, "puzzle-3x3-play-v0": 0.007}


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One set under every choice."""
    file = generate(
        name, episodes=options.episodes, workers=options.workers, data_dir=options.data_dir
    )
    arrays = read_set(file)
    count = len(arrays["observations"])
    data = to_dataset(name, arrays, np.zeros(count, np.float32), np.ones(count, np.float32))
    began = time.perf_counter()
    found = choices_table(data, queries=options.queries)
    return {
        "episodes": options.episodes,
        "queries": options.queries,
        "transitions": data.transitions,
        "seconds": round(time.perf_counter() - began, 1),
        "file": file_entry(file),
        "choices": [estimate.to_json() for estimate in found],
    }


def ordered(sets: dict[str, Any]) -> list[dict[str, Any]]:
    """Every choice with its values, the nearest to the published ones first."""
    rows: list[dict[str, Any]] = []
    for columns in zip(*(entry["choices"] for entry in sets.values()), strict=True):
        values = {name: column["value"] for name, column in zip(sets, columns, strict=True)}
        logs = [math.log(values[name] / PUBLISHED[name]) for name in sets]
        factor = math.exp(math.sqrt(sum(log**2 for log in logs) / len(logs)))
        rows.append({"choices": columns[0]["choices"], "values": values, "factor": factor})
    return sorted(rows, key=lambda row: row["factor"])


def main() -> None:
    """Measure what is left, then order the choices."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sets", nargs="+", default=list(PUBLISHED), choices=list(PUBLISHED))
    parser.add_argument("--data-dir", type=Path, default=Path("runs/iav/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/iav.json"))
    options = parser.parse_args()
    document: dict[str, Any] = {"command": "python benchmarks/iav_choices.py", "sets": {}}
    if options.out.exists():
        document["sets"] = json.loads(options.out.read_text())["sets"]
    for name in options.sets:
        kept = document["sets"].get(name, {})
        asked = {"episodes": options.episodes, "queries": options.queries}
        if {key: kept.get(key) for key in asked} != asked:
            document["sets"][name] = measure(name, options)
        document["published"] = PUBLISHED
        document["ordered"] = ordered(document["sets"])
        document["provenance"] = made_by(document["command"])
        write_result(options.out, document)
    for row in document["ordered"]:
        values = ", ".join(f"{name} {value:.4f}" for name, value in row["values"].items())
        print(f"off by a factor of {row['factor']:.2f}: {values}; {row['choices']}")


if __name__ == "__main__":
    main()
