"""Success against seconds of training, both schedules: `python benchmarks/schedules.py`.

Trains DeFlow on cube-single task 1 (300 generated episodes, 3x256), each schedule with each seed
as a run of its own, evaluates 50 episodes at each point, and writes the curves to
`benchmarks/results/schedules.json` and `docs/images/schedules.png`. Runs that are finished are
kept, those that were stopped go on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from committed import write_result
from deflow.agents.deflow import DeFlow
from deflow.data.generate import generate
from deflow.experiments.lineup import train_all
from deflow.training.config import TrainConfig
from deflow.training.curve import plot_members
from deflow.training.run_folder import RunFolder

TASK = "cube-single-play-singletask-task1-v0"
STEPS = {"joint": 8_000, "flow-first": 8_000}


def run(schedule: str, seed: int, options: argparse.Namespace) -> RunFolder:
    """One run, finished: begun, gone on with, or found; one of other settings is refused."""
    name = f"{schedule}-seed{seed}"
    config = TrainConfig(
        task=TASK,
        agent=DeFlow(hidden=(256, 256, 256), prior_steps=25_000, learning_rate=1e-3, delta=0.003),
        schedule=schedule,
        seeds=(seed,),
        steps=STEPS[schedule],
        eval_every=2000,
        eval_episodes=50,
        checkpoint_every=2000,
        run_dir=options.runs / name,
        data_dir=options.data_dir,
    )
    return train_all({name: config}, None).folders[name]


def main() -> None:
    """All runs, then the JSON and the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/schedules"))
    parser.add_argument("--data-dir", type=Path, default=Path("runs/schedules/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/schedules.json"))
    parser.add_argument("--figure", type=Path, default=Path("docs/images/schedules.png"))
    options = parser.parse_args()
    generate("cube-single-play-v0", episodes=300, workers=2, data_dir=options.data_dir)
    runs: dict[str, list[RunFolder]] = {schedule: [] for schedule in STEPS}
    for seed in options.seeds:
        for schedule in STEPS:
            runs[schedule].append(run(schedule, seed, options))
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    document: dict[str, Any] = {"task": TASK, "episodes_of_data": 300, "hidden": [256] * 3}
    for schedule, folders in runs.items():
        records = [r for folder in folders for r in folder.read_lines(folder.evaluations)]
        plot_members(axes, records, "train_seconds", schedule, "success")
        kept = ("member", "step", "train_seconds", "success", "return", "length")
        document[schedule] = [{name: record[name] for name in kept} for record in records]
    document["provenance"] = runs["joint"][0].read_json("provenance.json")
    document["provenance"]["command"] = "python benchmarks/schedules.py"
    axes.set_title("DeFlow, 3x256: cube-single task 1, 300 episodes, three seeds", size=11)
    axes.set_xlabel("seconds of training (two CPU cores, compilation included)")
    axes.set_ylabel("success over 50 episodes (%)")
    axes.set_ylim(-3, 103)
    axes.grid(alpha=0.3)
    axes.legend()
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.figure, dpi=150)
    write_result(options.out, document)


if __name__ == "__main__":
    main()
