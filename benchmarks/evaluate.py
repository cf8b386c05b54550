"""How fast evaluation is: `python benchmarks/evaluate.py`.

Fifty episodes of cube-single with an untrained DeFlow policy, two ways of paying for them: all
episodes in lockstep over worker processes with one batched call, and the plain loop of one
environment and one observation at a time. Rates are medians of the repeats, environments already
made and programs already compiled. Writes `benchmarks/results/evaluate.json`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from committed import made_by, write_result
from deflow.agents.deflow import DeFlow
from deflow.core.types import Spec
from deflow.envs.make import EnvSpec, make_env
from deflow.envs.seeded import SeededEnv
from deflow.training.evaluate import Evaluator, batched_act
from deflow.training.family import Family, Member

ENV = EnvSpec("cube-single-singletask-task1-v0")
SPEC = Spec(28, 5, (-1.0, 0.0), 1)


def lockstep(family: Family, states: Any, episodes: int, repeats: int) -> dict[str, Any]:
    """The library's evaluation: rate, and where the wall time went."""
    workers = os.cpu_count() or 1
    rates, outside, acting = [], [], []
    with Evaluator(ENV, SPEC, 1, episodes, workers) as evaluator:
        evaluator(family.agents, states, 0)
        for repeat in range(1, repeats + 1):
            _, times = evaluator(family.agents, states, repeat)
            rates.append(episodes / times.total)
            outside.append(1 - times.workers / workers / times.total)
            acting.append(times.acting / times.total)
    return {
        "episodes_per_second": round(statistics.median(rates), 3),
        "share_outside_stepping": round(statistics.median(outside), 4),
        "share_acting": round(statistics.median(acting), 4),
        "workers": workers,
        "episodes": episodes,
    }


def one_by_one(family: Family, states: Any, episodes: int) -> dict[str, Any]:
    """One environment, one observation at a time."""
    env = SeededEnv(make_env(ENV))
    rates, stepping = [], []
    for episode in range(episodes + 1):
        began, inside, step, done = time.perf_counter(), 0.0, 0, False
        observation = env.reset(0, episode)
        while not done:
            where = (np.uint32(0), np.array([[episode]]), np.array([[step]]))
            row = np.asarray(observation, np.float32)[None, None]
            action = np.asarray(batched_act(family.agents, states, row, *where, SPEC, "policy"))
            tick = time.perf_counter()
            observation, _, terminated, truncated, _ = env.step(action[0, 0])
            inside += time.perf_counter() - tick
            step, done = step + 1, terminated or truncated
        seconds = time.perf_counter() - began
        rates.append(1 / seconds)
        stepping.append(inside / seconds)
    env.close()
    return {
        "episodes_per_second": round(statistics.median(rates[1:]), 3),
        "share_outside_stepping": round(1 - statistics.median(stepping[1:]), 4),
        "episodes": episodes,
    }


def main() -> None:
    """Measure both ways at two sizes and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/evaluate.json"))
    options = parser.parse_args()
    rows = []
    for hidden in ((256,) * 3, (512,) * 4):
        family = Family.build(DeFlow(hidden=hidden), [Member(0)])
        states = family.init(SPEC)
        fast = lockstep(family, states, options.episodes, options.repeats)
        slow = one_by_one(family, states, 8)
        ratio = fast["episodes_per_second"] / slow["episodes_per_second"]
        rows.append({"hidden": hidden, "lockstep": fast, "loop": slow, "ratio": round(ratio, 2)})
        print(rows[-1], flush=True)
    where = {**made_by("python benchmarks/evaluate.py"), "env": ENV.name}
    write_result(options.out, {"rows": rows, **where})


if __name__ == "__main__":
    main()
