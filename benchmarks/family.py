"""Is a family of four its four runs? `python benchmarks/family.py --data-dir DIR`.

Trains DeFlow for 200 steps of each phase on generated cube-single data, at the demo's size: seeds
0 to 3 in one program, then each alone. Every loss of every step is held against its twin, relative
to the latter (floor 1e-6). Writes `benchmarks/results/family.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from committed import made_by, write_result
from deflow.agents.deflow import DeFlow
from deflow.core.types import Spec
from deflow.data.generate import generate
from deflow.data.names import parse_task
from deflow.data.ogbench import load_task
from deflow.training.device_data import DeviceData
from deflow.training.family import Family, Member, compute_rows, run_chunk

TASK, STEPS, MEMBERS, LIMIT, FLOOR = "cube-single-play-singletask-task1-v0", 200, 4, 1e-4, 1e-6

History = dict[str, np.ndarray]


def losses(agent: DeFlow, seeds: list[int], data: DeviceData, spec: Spec, schedule: str) -> History:
    """Every loss of every step, [steps, members], by phase and name."""
    family = Family.build(agent, [Member(seed) for seed in seeds])
    states = family.init(spec)
    fields: dict[str, jax.Array] = {}
    found: History = {}
    for index, phase in enumerate(agent.phases(spec, schedule)):
        own = {name: fields[name] for name in phase.fields}
        states, metrics = run_chunk(
            family, states, data, own, jnp.asarray(0), phase, index, phase.steps
        )
        found |= {
            f"{phase.name}: {name}": np.asarray(values)
            for name, values in metrics.items()
            if name.endswith("loss")
        }
        for field in phase.leaves:
            fields[field.name] = compute_rows(family, states, data, field)
    return found


def compare(together: History, alone: list[History]) -> dict[str, Any]:
    """For each loss: its largest relative difference, and the share of steps inside the limit."""
    rows = {}
    for name, ours in together.items():
        theirs = np.concatenate([run[name] for run in alone], axis=1)
        apart = np.abs(ours - theirs) / np.maximum(np.abs(theirs), FLOOR / LIMIT)
        rows[name] = {
            "largest": float(apart.max()),
            "at_step": int(apart.max(1).argmax()),
            "inside": float((apart <= LIMIT).mean()),
        }
    return rows


def main() -> None:
    """Both schedules, and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("runs/schedules/data"))
    parser.add_argument("--hidden", type=int, nargs="+", default=[256] * 3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/family.json"))
    options = parser.parse_args()
    generate("cube-single-play-v0", episodes=300, workers=2, data_dir=options.data_dir)
    dataset, _ = load_task(parse_task(TASK), options.data_dir)
    spec = Spec(dataset.observations.shape[1], dataset.actions.shape[1], (-1.0, 0.0), STEPS)
    data, agent = DeviceData.from_dataset(dataset), DeFlow(hidden=tuple(options.hidden))
    document: dict[str, Any] = {"limit": LIMIT, "hidden": options.hidden, "members": MEMBERS}
    for schedule in ("joint", "flow-first"):
        together = losses(agent, list(range(MEMBERS)), data, spec, schedule)
        alone = [losses(agent, [seed], data, spec, schedule) for seed in range(MEMBERS)]
        document[schedule] = compare(together, alone)
        print(schedule, json.dumps(document[schedule], indent=1), flush=True)
    about = {"name": TASK, "fingerprint": dataset.fingerprint()}
    document["provenance"] = made_by("python benchmarks/family.py", about)
    write_result(options.out, document)


if __name__ == "__main__":
    main()
