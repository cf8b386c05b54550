"""Which behaviours and extractions keep the modes of the data? `python benchmarks/modes.py`.

One state; actions in the plane at 1, 2, 4 or 8 equally likely modes on a circle. The reward is the
distance from the middle, so that each mode has a slope of its own to climb, and opposite modes call
for opposite shifts. Every system is trained for the same steps on three seeds in one program; then
1000 actions are drawn. Reported are the modes that are kept (those that get at least half of their
due share of the actions) and the share of actions near any mode. Writes
`benchmarks/results/modes.json` and `docs/images/modes.png`.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from committed import made_by, write_result
from deflow.agents.registry import AGENTS
from deflow.core.agent import Agent, Phase
from deflow.core.types import Spec
from deflow.data.dataset import Dataset
from deflow.training.device_data import DeviceData, device_columns
from deflow.training.family import Family, compute_rows, members_of, run_chunk

RADIUS, WIDTH, NEAR = 0.6, 0.05, 0.2
"""Where the modes stand, their deviation, and how far from one still counts as there."""
MODES = (1, 2, 4, 8)
SEEDS = (0, 1, 2)
ROWS, DRAWN = 8192, 1000
SIZES: dict[str, Any] = {"hidden": (64, 64), "batch_size": 256, "learning_rate": 1e-3}

SYSTEMS: dict[str, dict[str, Any]] = {
    "bc": {},
    "iql": {"alpha": 3.0},
    "rebrac": {"alpha_actor": 1.0},
    "idql": {"best_of": 4, "behavior_width": 64},
    "srpo": {"beta": 0.1, "behavior_width": 64},
    "cac": {"eta": 0.1},
    "fawac": {"alpha": 3.0},
    "fbrac": {"alpha": 10.0},
    "ifql": {"best_of": 4},
    "fql": {"alpha": 10.0},
    "deflow": {"delta": 0.003},
    "df-dir": {},
    "df-div": {},
}
"""The settings in which each differs from the rest, chosen before the first run."""


def centres(modes: int) -> np.ndarray:
    """[modes, 2]."""
    angles = 2 * math.pi * np.arange(modes) / modes + math.pi / 8
    return RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def dataset(modes: int) -> Dataset:
    """Actions at the modes; the further out, the better, wherever one is."""
    rng = np.random.default_rng(0)
    actions = centres(modes)[rng.integers(modes, size=ROWS)]
    actions = (actions + WIDTH * rng.standard_normal((ROWS, 2))).astype(np.float32)
    return Dataset.from_arrays(
        observations=np.zeros((ROWS, 1), np.float32),
        actions=actions,
        rewards=np.linalg.norm(actions, axis=1).astype(np.float32),
        terminals=np.ones(ROWS, np.bool_),
        name=f"{modes} modes",
    )


def build(name: str) -> Agent:
    """An agent with the common sizes, where it has them."""
    cls = AGENTS[name]
    common = {key: value for key, value in SIZES.items() if key in cls.__dataclass_fields__}
    return cls(**{**common, **SYSTEMS[name]})


def train(agent: Agent, phases: tuple[Phase, ...], spec: Spec, data: Dataset) -> np.ndarray:
    """Actions of every seed after training, [seeds, drawn, 2], and of the base where there is."""
    family = Family.build(agent, members_of(SEEDS, {}))
    states, device = family.init(spec), DeviceData.from_dataset(data)
    fields: dict[str, jax.Array] = {}
    for index, phase in enumerate(phases):
        for missing in set(phase.fields) - set(fields):
            fields |= device_columns(data, agent, [missing])
        own = {key: fields[key] for key in phase.fields}
        start = jnp.asarray(0)
        states, _ = run_chunk(family, states, device, own, start, phase, index, phase.steps)
        for left in phase.leaves:
            fields[left.name] = compute_rows(family, states, device, left)
    return np.asarray(act(family.agents, states, spec))


def act(agents: Agent, states: Any, spec: Spec) -> jax.Array:
    """DRAWN actions of each member in the only state."""
    keys = jax.random.split(jax.random.key(1), DRAWN)
    observations = jnp.zeros((DRAWN, 1))

    def one(agent: Agent, state: Any) -> jax.Array:
        noise = jax.vmap(lambda key: agent.draw_act(key, spec))(keys)
        return agent.act(state, observations, noise, "evaluate")

    actions: jax.Array = jax.jit(jax.vmap(one))(agents, states)
    return actions


def judge(actions: np.ndarray, modes: int) -> dict[str, Any]:
    """Of one seed: modes kept, and the share of actions near one."""
    distances = np.linalg.norm(actions[:, None] - centres(modes), axis=-1)
    # Refinement may walk outwards along a mode's ray; only leaving the ray loses the mode.
    near = distances.min(1) < NEAR
    shares = np.bincount(distances.argmin(1)[near], minlength=modes) / len(actions)
    return {
        "kept": int((shares >= 0.5 / modes).sum()),
        "near": round(float(near.mean()), 3),
        "value": round(float(np.linalg.norm(actions, axis=1).mean()), 3),
    }


def draw(samples: dict[str, dict[int, np.ndarray]], rows: list[dict[str, Any]], file: Path) -> None:
    """A row for each system, a column for each number of modes."""
    figure = Figure(figsize=(2.1 * len(MODES), 1.95 * len(samples)), layout="constrained")
    grid = figure.subplots(len(samples), len(MODES), squeeze=False)
    for row, (name, found) in enumerate(samples.items()):
        for col, modes in enumerate(MODES):
            axes = grid[row, col]
            for x, y in centres(modes):
                axes.add_patch(_ring(x, y))
            axes.scatter(*found[modes][0, :400].T, s=3, alpha=0.5, linewidths=0)
            own = [r for r in rows if r["agent"] == name and r["modes"] == modes]
            kept = np.mean([r["kept"] for r in own])
            axes.set_title(f"{kept:.2g} of {modes} kept", fontsize=8)
            axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), xticks=[], yticks=[], aspect="equal")
        grid[row, 0].set_ylabel(name, fontsize=11)
    figure.suptitle("Actions of each system on data with 1, 2, 4 and 8 modes (seed 0; means of 3)")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def _ring(x: float, y: float) -> Any:
    from matplotlib.patches import Circle

    return Circle((x, y), NEAR, fill=False, edgecolor="tab:red", linewidth=0.8)


def main() -> None:
    """Every system on every number of modes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", nargs="+", default=[n for n in SYSTEMS if n in AGENTS])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/modes.json"))
    parser.add_argument("--figure", type=Path, default=Path("docs/images/modes.png"))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    samples: dict[str, dict[int, np.ndarray]] = {}
    for name in options.agents:
        agent, began = build(name), time.perf_counter()
        spec = Spec(1, 2, (0.0, 1.0), options.steps)
        phases = agent.phases(spec, agent.schedules[0])
        samples[name] = {}
        for modes in MODES:
            samples[name][modes] = train(agent, phases, spec, dataset(modes))
            for seed, actions in zip(SEEDS, samples[name][modes], strict=True):
                rows.append({"agent": name, "modes": modes, "seed": seed, **judge(actions, modes)})
        print(name, round(time.perf_counter() - began, 1), rows[-3:], flush=True)
    document = {
        "rows": rows,
        "steps": options.steps,
        "settings": {name: {**SIZES, **SYSTEMS[name]} for name in options.agents},
        "provenance": made_by(shlex.join(["python", *sys.argv])),
    }
    write_result(options.out, document)
    draw(samples, rows, options.figure)


if __name__ == "__main__":
    main()
