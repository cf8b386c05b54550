"""DeFlow at the paper's size for an hour and a half: `python benchmarks/paper_size.py`.

The published settings (4x512, rate 3e-4, delta 0.001) on cube-single task 1 with 300 generated
episodes, flow-first. Stopped at any moment, the same command goes on. Writes the curve to
`benchmarks/results/paper_size.json` and `docs/images/paper_size.png`; `--report` only that, from
what is there.
"""

from __future__ import annotations

import argparse
import shlex
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
from schedules import TASK

KEPT = ("step", "train_seconds", "success", "return", "length")


def carry_out(options: argparse.Namespace) -> None:
    """Begin the run, or go on with it; one of other settings is refused."""
    generate("cube-single-play-v0", episodes=300, workers=2, data_dir=options.data_dir)
    config = TrainConfig(
        task=TASK,
        agent=DeFlow(prior_steps=50_000),
        schedule="flow-first",
        seeds=(options.seed,),
        steps=options.steps,
        eval_every=5000,
        eval_episodes=50,
        checkpoint_every=5000,
        run_dir=options.run,
        data_dir=options.data_dir,
    )
    train_all({"deflow": config}, None)


def report(options: argparse.Namespace, folder: RunFolder) -> None:
    """The curve as numbers and as a picture."""
    records = folder.read_lines(folder.evaluations)
    document: dict[str, Any] = {
        "task": TASK,
        "curve": [{name: record[name] for name in KEPT} for record in records],
        "config": folder.config().to_json(),
        "provenance": folder.read_json("provenance.json"),
    }
    document["config"].update(run_dir=None, data_dir=None)
    document["provenance"]["command"] = shlex.join(["python", "benchmarks/paper_size.py"])
    write_result(options.out, document)
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    plot_members(axes, records, "train_seconds", "flow-first, 4x512", "success")
    title = "DeFlow at the paper's size: cube-single task 1, 300 episodes, one seed"
    axes.set_title(title, size=11)
    axes.set_xlabel("seconds of training (two CPU cores, compilation included)")
    axes.set_ylabel("success over 50 episodes (%)")
    axes.set_ylim(-3, 103)
    axes.grid(alpha=0.3)
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.figure, dpi=150)


def main() -> None:
    """Train, then report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60_000, help="of the policy")
    parser.add_argument("--run", type=Path, default=Path("runs/paper_size"))
    parser.add_argument("--data-dir", type=Path, default=Path("runs/schedules/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/paper_size.json"))
    parser.add_argument("--figure", type=Path, default=Path("docs/images/paper_size.png"))
    parser.add_argument("--report", action="store_true", help="only write what is there")
    options = parser.parse_args()
    if not options.report:
        carry_out(options)
    report(options, RunFolder(options.run))


if __name__ == "__main__":
    main()
