"""Where an online step's milliseconds go (Table 4's question): `python benchmarks/online_step.py`.

Cube-single task 1, 3x256 and 4x512, batch 256: DeFlow with its prior learning and frozen, and FQL;
one seed and four in lockstep. Each is warmed up for 200 steps and timed over the next 400, split
into acting, the environments and updating; beside them the GFLOP of an update's matrix products and
of an action, by count. For a quiet machine: some half an hour, nothing is evaluated or kept. Writes
`benchmarks/results/online_step.json`.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from committed import made_by, write_result
from deflow.agents.deflow import DeFlow
from deflow.agents.fql import FQL
from deflow.core.agent import Agent
from deflow.core.flops import product_flops
from deflow.core.types import Spec
from deflow.data.generate import generate
from deflow.experiments.cost import phase_costs
from deflow.training.config import TrainConfig
from deflow.training.train import train
from schedules import TASK

WARM, TIMED = 200, 400
SYSTEMS: dict[str, Agent] = {
    "DeFlow": DeFlow(),
    "DeFlow, frozen prior": DeFlow(prior_online="frozen"),
    "FQL": FQL(alpha=300.0),
}
SIZES = {"3x256": (256, 256, 256), "4x512": (512, 512, 512, 512)}
PARTS = ("acting", "environment", "updating")


def measured(agent: Agent, seeds: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run, its last lines of metrics, and what its arithmetic comes to."""
    with tempfile.TemporaryDirectory() as home:
        config = TrainConfig(
            task=TASK,
            agent=agent,
            seeds=tuple(range(seeds)),
            steps=1,
            online_steps=WARM + TIMED,
            log_every=WARM,
            chunk=100,
            eval_episodes=0,
            checkpoint_every=WARM + TIMED,
            run_dir=Path(home) / "run",
            data_dir=options.data_dir,
        )
        folder = train(config)
        lines = [r for r in folder.read_lines(folder.metrics) if r["phase"] == "online"]
        warm = [line for line in lines if line["step"] > WARM and line["member"] == "seed0"]
        spec = Spec.from_json(folder.read_json("spec.json"))
    parts = {name: float(np.mean([line[f"online/{name}_ms"] for line in warm])) for name in PARTS}
    costs = phase_costs(replace(config, online_steps=1), spec)
    return {
        "seeds": seeds,
        **{f"{name}_ms": round(value, 3) for name, value in parts.items()},
        "step_ms": round(sum(parts.values()), 3),
        "update_gflop": costs[-1]["gflop_per_step"],
        "act_gflop": act_gflop(agent, spec),
    }


def act_gflop(agent: Agent, spec: Spec) -> float:
    """Matrix products of one action."""
    key = jax.random.key(0)
    state = jax.eval_shape(lambda: agent.init(key, spec))

    def act(state: Any) -> Any:
        noise = jax.tree.map(lambda leaf: leaf[None], agent.draw_act(key, spec))
        return agent.act(state, jnp.zeros((1, spec.observation_dim)), noise, "explore")

    return product_flops(act, state) / 1e9


def main() -> None:
    """Every system and size, for one seed and four."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("runs/schedules/data"))
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/online_step.json"))
    options = parser.parse_args()
    generate("cube-single-play-v0", episodes=300, workers=2, data_dir=options.data_dir)
    rows = []
    for size in options.sizes:
        for name, agent in SYSTEMS.items():
            sized: Agent = replace(agent, hidden=SIZES[size])  # type: ignore[call-arg]
            for seeds in (1, 4):
                rows.append({"system": name, "size": size, **measured(sized, seeds, options)})
                print(rows[-1], flush=True)
    command = f"python benchmarks/online_step.py --sizes {' '.join(options.sizes)}"
    about = made_by(command, {"name": "cube-single-play-v0", "episodes": 300})
    document = {"warm_steps": WARM, "timed_steps": TIMED, "rows": rows, "provenance": about}
    write_result(options.out, document)


if __name__ == "__main__":
    main()
