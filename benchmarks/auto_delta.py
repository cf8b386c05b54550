"""A trust region taken from the data against a given one: `python benchmarks/auto_delta.py`.

DeFlow on cube-single task 1 (300 generated episodes) and on Maze2D's U-maze (collected as
`d4rl_sets.py` does), 3x256, flow first and shared, three seeds. On each, `auto`, which is a tenth
of the data's intrinsic action variance for manipulation and all of it for navigation, and the
preset delta (for the maze nothing is published, so that it is the plain default) are trained in
one family, and evaluated after 2,000, 4,000 and 6,000 steps. Writes
`benchmarks/results/auto_delta.json` and `docs/images/auto_delta.png`. What is made, estimated or
trained is kept, what was stopped goes on; `--report` prints the tables in Markdown.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from d4rl_sets import MAZE, collect_maze
from deflow.agents.deflow import DeFlow
from deflow.agents.registry import from_settings, preset, published_steps
from deflow.core.files import write_json
from deflow.data.generate import generate
from deflow.data.iav import intrinsic_action_variance, published_factor
from deflow.experiments.report import mean_over
from deflow.experiments.sweep import sweep
from deflow.training.config import TrainConfig
from deflow.training.curve import name_axis, save_figure
from deflow.training.run_folder import RunFolder
from deflow.training.score import SCORES
from deflow.training.source import source
from deflow.training.task import env_name
from schedules import TASK as CUBE

COMMAND = "python benchmarks/auto_delta.py"
TASKS = (CUBE, MAZE)
POINTS = 3
"""Evaluations of a run."""


def data_folder(task: str, options: argparse.Namespace) -> Path:
    """Where the data of a task are, made if they are not."""
    if task == CUBE:
        generate("cube-single-play-v0", episodes=300, workers=2, data_dir=options.data_dir)
        folder: Path = options.data_dir
    else:
        folder = options.maze_dir
        collect_maze(folder / f"{MAZE}.hdf5", options.maze_steps)
    return folder


def estimate(task: str, data_dir: Path, kept: Path) -> dict[str, Any]:
    """The data's intrinsic action variance and the delta that follows, found once for these data
    and kept."""
    dataset = source(task).load(data_dir)
    data = dataset.fingerprint()
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        if found.get("data") == data:
            return found
    variance, factor = intrinsic_action_variance(dataset), published_factor(task)
    found = {
        "data": data,
        "delta": factor * variance.value,
        "factor": factor,
        "iav": variance.to_json(),
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, found)
    return found


def compare(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """Both deltas in one family, and how well each did at each point."""
    out, data_dir = options.runs / env_name(task), data_folder(task, options)
    auto = estimate(task, data_dir, out / "iav.json")
    settings = {
        **preset("deflow", env_name(task)),
        "hidden": tuple(options.hidden),
        "learning_rate": 1e-3,
        "prior_steps": options.prior_steps,
    }
    agent = from_settings("deflow", settings)
    assert isinstance(agent, DeFlow)
    deltas = {"preset": agent.delta, "auto": auto["delta"]}
    every = max(1, options.steps // POINTS)
    config = TrainConfig(
        task=task,
        agent=agent,
        seeds=tuple(options.seeds),
        over={"delta": tuple(deltas.values())},
        steps=every * POINTS,
        schedule="flow-first",
        share_flow=True,
        eval_every=every,
        eval_episodes=options.eval_episodes,
        checkpoint_every=every,
        run_dir=out / "deflow",
        data_dir=data_dir,
    )
    document = sweep(config, out)
    found = RunFolder(out / "deflow")
    curves = {
        name: curve(found.read_lines(found.evaluations), point["members"], every)
        for (name, _), point in zip(deltas.items(), document["points"], strict=True)
    }
    document["provenance"]["command"] = COMMAND
    return {
        "task": task,
        "published": published_steps("deflow", env_name(task)) is not None,
        "auto": auto,
        "deltas": deltas,
        "score": document["score"],
        "curves": curves,
        **{key: document[key] for key in ("points", "phases", "settings", "seeds")},
        **{key: document[key] for key in ("train_seconds", "provenance")},
    }


def curve(
    records: list[dict[str, Any]], members: list[dict[str, Any]], every: int
) -> list[dict[str, Any]]:
    """Mean and deviation over the seeds of one delta, at each evaluation."""
    labels = {member["member"] for member in members}
    own = [record for record in records if record["member"] in labels]
    return [
        {
            "step": step,
            **{score: mean_over([r for r in own if r["step"] == step], score) for score in SCORES},
        }
        for step in range(every, POINTS * every + 1, every)
    ]


def draw(tasks: list[dict[str, Any]], path: Path) -> None:
    """Success over steps, a panel for each task and a line for each delta."""
    figure = Figure(figsize=(5 * len(tasks), 3.8), layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for axes, task in zip(panels, tasks, strict=True):
        scale = SCORES[task["score"]].scale
        for name, points in task["curves"].items():
            scores = [point[task["score"]] for point in points]
            axes.errorbar(
                [point["step"] for point in points],
                [scale * score["mean"] for score in scores],
                [scale * score["std"] for score in scores],
                marker="o",
                capsize=3,
                label=f"{name}: {task['deltas'][name]:.2g}",
            )
        axes.set_title(task["task"], size=10)
        axes.set_xlabel("policy steps")
        name_axis(axes, task["score"])
        axes.grid(alpha=0.3)
        axes.legend(title="delta")
    save_figure(figure, path)


def table(document: dict[str, Any]) -> None:
    """The curves in Markdown: means and deviations over seeds."""
    for task in document["tasks"]:
        steps = [f"{point['step']:,} steps" for point in task["curves"]["auto"]]
        print(f"\n**{task['task']}**, {SCORES[task['score']].label}\n")
        print(f"| delta | {' | '.join(steps)} |\n|---|{'---|' * len(steps)}")
        scale = SCORES[task["score"]].scale
        for name, points in task["curves"].items():
            scores = [point[task["score"]] for point in points]
            cells = [f"{scale * s['mean']:.1f} ± {scale * s['std']:.1f}" for s in scores]
            print(f"| {name}, {task['deltas'][name]:.2g} | {' | '.join(cells)} |")


def main() -> None:
    """Both tasks, one after another; written after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--steps", type=int, default=6000, help="of the policy")
    parser.add_argument("--prior-steps", type=int, default=25_000, help="of the shared flow")
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 256, 256])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--eval-episodes", type=int, default=50)
    parser.add_argument("--maze-steps", type=int, default=200_000, help="rows of the maze's set")
    parser.add_argument("--runs", type=Path, default=Path("runs/auto_delta"))
    parser.add_argument("--data-dir", type=Path, default=Path("runs/schedules/data"))
    parser.add_argument("--maze-dir", type=Path, default=Path("runs/d4rl_sets/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/auto_delta.json"))
    parser.add_argument("--figure", type=Path, default=Path("docs/images/auto_delta.png"))
    parser.add_argument("--report", action="store_true", help="only print what is there")
    options = parser.parse_args()
    if options.report:
        table(json.loads(options.out.read_text()))
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {"command": COMMAND}
    found: dict[str, Any] = {}
    if options.out.exists():
        found = {task["task"]: task for task in json.loads(options.out.read_text())["tasks"]}
    for task in options.tasks:
        found[task] = compare(task, options)
        document["tasks"] = [found[name] for name in TASKS if name in found]
        write_json(options.out, document)
        draw(document["tasks"], options.figure)
    table(document)


if __name__ == "__main__":
    main()
