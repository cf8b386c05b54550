"""Fixed multipliers against the learnt one, offline then online (Table 5 in miniature):
`python benchmarks/online_alpha.py`.

One family of seven: DeFlow with alpha kept at Table 5's 0.03, 0.1, 0.3, 1 and 3, at 9 (what the
published code makes of 3, since it squares), and learnt (0), 3x256, published settings otherwise,
10,000 gradient steps on the data and 10,000 steps in the environment, on cube-single task 1 (300
generated episodes) and puzzle-3x3 task 3 (100, the task of which they hold successes). What is
trained is kept, what was stopped goes on. Writes `benchmarks/results/online_alpha.json`, where a
task that `--tasks` leaves out stays as it is, and `docs/images/online_alpha.png`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from committed import command_of, committed, curve, write_result
from deflow.agents.registry import from_settings, preset
from deflow.data.generate import generate
from deflow.data.names import parse_task
from deflow.experiments.report import score_text
from deflow.experiments.sweep import sweep
from deflow.training.config import TrainConfig
from deflow.training.curve import mark_hand_over, name_axis, plot_members, save_figure
from deflow.training.run_folder import RunFolder
from deflow.training.task import env_name
from schedules import TASK

COMMAND = "python benchmarks/online_alpha.py"
USUAL = {"seeds": (0,), "steps": 10_000, "online_steps": 10_000, "eval_episodes": 50}
ALPHAS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 9.0)
TASKS = {TASK: 300, "puzzle-3x3-play-singletask-task3-v0": 100}
"""Episodes of data for each."""


def run(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """The family on one task, trained or found: what it comes to, and its curves."""
    environment = env_name(task)
    dataset = parse_task(task).dataset
    generate(dataset, episodes=TASKS[task], workers=2, data_dir=options.data_dir)
    settings = {**preset("deflow", environment, online=True), "hidden": (256, 256, 256)}
    out = options.runs / environment
    config = TrainConfig(
        task=task,
        agent=from_settings("deflow", settings),
        seeds=tuple(options.seeds),
        over={"fixed_alpha": ALPHAS},
        steps=options.steps,
        online_steps=options.online_steps,
        eval_every=2500,
        checkpoint_every=2500,
        eval_episodes=options.eval_episodes,
        run_dir=out / "deflow",
        data_dir=options.data_dir,
    )
    found, folder = sweep(config, out), RunFolder(out / "deflow")
    return {**committed(found, command_of(COMMAND, folder, USUAL)), "curve": curve(folder)}


def drawn(axes: Axes, records: list[dict[str, Any]], task: str) -> None:
    """The curves of one family, a color for each multiplier: returns where none succeeded."""
    score = "success" if any(record["success"] for record in records) else "return"
    for alpha in ALPHAS:
        own = [r for r in records if r["member"].endswith(f"fixed_alpha{alpha:g}")]
        plot_members(axes, own, "total_step", name_of(alpha), score)
    mark_hand_over(axes, records)
    axes.set_title(task, size=10)
    axes.set_xlabel("gradient steps, then steps in the environment")
    name_axis(axes, score)
    axes.grid(alpha=0.3)


def name_of(alpha: float) -> str:
    """What a multiplier is called."""
    return f"{alpha:g}" if alpha else "learnt"


def main() -> None:
    """Both families, then the JSON, the figure and lines for the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=USUAL["seeds"])
    parser.add_argument("--steps", type=int, default=USUAL["steps"])
    parser.add_argument("--online-steps", type=int, default=USUAL["online_steps"])
    parser.add_argument("--eval-episodes", type=int, default=USUAL["eval_episodes"])
    parser.add_argument("--runs", type=Path, default=Path("runs/online_alpha"))
    parser.add_argument("--data-dir", type=Path, default=Path("runs/schedules/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/online_alpha.json"))
    parser.add_argument("--figure", type=Path, default=Path("docs/images/online_alpha.png"))
    options = parser.parse_args()
    before = json.loads(options.out.read_text())["tasks"] if options.out.is_file() else {}
    fresh = {task: run(task, options) for task in options.tasks}
    records = {**before, **fresh}
    tasks = {task: records[task] for task in TASKS if task in records}
    figure = Figure(figsize=(5.5 * len(tasks) + 1, 4.2), layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for axes, (task, found) in zip(panels, tasks.items(), strict=True):
        drawn(axes, found["curve"], task)
        for point in found["points"]:
            alpha = name_of(point["settings"]["fixed_alpha"])
            print(f"| {task} | {alpha} | {score_text(point, 'success')} |")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", title="alpha")
    document = {"command": COMMAND, "tasks": tasks}
    write_result(options.out, document)
    save_figure(figure, options.figure)


if __name__ == "__main__":
    main()
