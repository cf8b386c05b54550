"""Do D4RL's original Adroit experts score here what they scored in D4RL?

    python benchmarks/adroit_experts.py --policies FOLDER [--episodes 100] [--workers 2] [--seed 0]

Rolls each expert (`policy_{pen,door,hammer,relocate}.npz` in FOLDER) as D4RL sampled it, in worker
processes, and writes `benchmarks/results/adroit_experts.json`: mean, deviation and standard error
of the normalised scores, and the share of episodes that succeed. 100 points are an expert's.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import platform
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from deflow.core.files import sha256, write_json
from deflow.core.progress import progress_bar
from deflow.data.adroit import EXPERTS, play_expert
from deflow.data.d4rl import normalized_score
from deflow.data.readers.dapg import Expert
from deflow.envs.d4rl import make_d4rl
from deflow.training.run_folder import provenance

RESULTS = Path(__file__).parent / "results" / "adroit_experts.json"

_made: dict[str, Any] = {}


def main() -> None:
    """Roll the experts and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policies", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    report: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "episodes": options.episodes,
        "seed": options.seed,
        "versions": {
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in ("gymnasium-robotics", "mujoco", "gymnasium", "numpy")
            },
        },
        "machine": provenance({})["machine"],
        "experts": {},
    }
    with mp.get_context("spawn").Pool(options.workers) as pool, progress_bar() as bar:
        for dataset in EXPERTS:
            policy = options.policies / f"policy_{dataset.split('-')[0]}.npz"
            jobs = [(dataset, policy, options.seed, index) for index in range(options.episodes)]
            task = bar.add_task(dataset, total=len(jobs), note="")
            started, played = time.perf_counter(), []
            for result in pool.imap_unordered(_play, jobs, chunksize=1):
                played.append(result)
                bar.advance(task)
            report["experts"][dataset] = {
                "policy_sha256": sha256(policy),
                "seconds": round(time.perf_counter() - started, 1),
                **_summary(dataset, sorted(played)),
            }
    options.out.parent.mkdir(exist_ok=True)
    write_json(options.out, report)
    print(json.dumps(report, indent=2))


def _play(job: tuple[str, Path, int, int]) -> tuple[int, float, int, bool]:
    """(episode, return, length, success) of one episode."""
    dataset, policy, seed, index = job
    if dataset not in _made:
        _made[dataset] = (Watched(make_d4rl(dataset)), Expert.read(policy))
    env, expert = _made[dataset]
    rewards = play_expert(env, expert, seed, index)["rewards"]
    return index, float(rewards.sum(dtype=np.float64)), len(rewards), env.success


class Watched:
    """An environment that remembers whether its latest step counted as success."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.success = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def step(self, action: Any) -> Any:
        """The environment's step."""
        result = self.env.step(action)
        self.success = bool(result[-1]["success"])
        return result


def _summary(dataset: str, played: list[tuple[int, float, int, bool]]) -> dict[str, Any]:
    scores = np.array([normalized_score(dataset, return_) for _, return_, _, _ in played])
    spread = float(scores.std(ddof=1)) if len(scores) > 1 else 0.0
    return {
        "score_mean": round(float(scores.mean()), 2),
        "score_deviation": round(spread, 2),
        "score_standard_error": round(spread / len(scores) ** 0.5, 2),
        "success": round(float(np.mean([success for *_, success in played])), 3),
        "length_mean": round(float(np.mean([length for _, _, length, _ in played])), 1),
        "scores": scores.round(2).tolist(),
    }


if __name__ == "__main__":
    main()
