"""How success depends on the settings: `python benchmarks/robustness.py delta alpha best-of df`.

On cube-single task 1 (300 generated episodes, 3x256, rate 1e-3), each study by its name: the trust
region `delta` from a tenth to ten times the preset; fixed multipliers (Table 5) against the learnt
one; the best of 1, 4, 16 and 64 actions of the policy and of the base flow; Decision Flow over rho
and its number of steps T. DeFlow is trained flow-first. What is trained is kept, what was stopped
goes on. Writes `benchmarks/results/<study>.json` and `docs/images/<study>.png`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from committed import committed, write_result
from deflow.agents.decision_flow import DFDir, DFDiv
from deflow.agents.deflow import DeFlow
from deflow.core.agent import Agent
from deflow.core.files import write_json
from deflow.data.generate import generate
from deflow.experiments.lineup import mark_best, record, train_all
from deflow.experiments.report import mean_over
from deflow.experiments.sweep import sweep
from deflow.training.config import TrainConfig
from deflow.training.judge import judge
from schedules import TASK

Document = dict[str, Any]
SEEDS = (0, 1, 2)
SIZES: dict[str, Any] = {"hidden": (256, 256, 256), "learning_rate": 1e-3}
DELTAS = (0.0001, 0.0003, 0.001, 0.003, 0.01)
ALPHAS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Table 5's five, and 0, which learns the multiplier."""
BEST_OF = (1, 4, 16, 64)
RHOS = (0.01, 0.1, 1.0)
STEPS = (5, 10)
"""T of Decision Flow."""


def config(agent: Agent, out: Path, options: argparse.Namespace, **choice: Any) -> TrainConfig:
    """One family."""
    shared: dict[str, Any] = {
        "task": TASK,
        "agent": agent,
        "seeds": SEEDS,
        "eval_every": 2000,
        "checkpoint_every": 2000,
        "share_flow": True,
        "run_dir": out / agent.name,
        "data_dir": options.data_dir,
    }
    return TrainConfig(**{**shared, **choice})


def run(agent: Agent, out: Path, options: argparse.Namespace, **choice: Any) -> Document:
    """One family, trained or found, and what it comes to."""
    return sweep(config(agent, out, options, **choice), out)


def delta(options: argparse.Namespace) -> Document:
    """Fifteen runs in one family, on one flow."""
    agent = DeFlow(**SIZES, prior_steps=25_000)
    over = {"delta": DELTAS}
    return run(agent, options.runs / "delta", options, over=over, steps=6000, schedule="flow-first")


def alpha(options: argparse.Namespace) -> Document:
    """Eighteen runs in one family, three of which learn the multiplier."""
    agent = DeFlow(**SIZES, prior_steps=25_000, delta=0.003)
    over = {"fixed_alpha": ALPHAS}
    return run(agent, options.runs / "alpha", options, over=over, steps=6000, schedule="flow-first")


def best_of(options: argparse.Namespace) -> Document:
    """The studies' runs at their own delta, evaluated with more and more candidates."""
    agent = DeFlow(**SIZES, prior_steps=25_000, delta=0.003)
    out = options.runs / "best_of"
    begun = config(agent, out, options, steps=6000, schedule="flow-first")
    folder = train_all({agent.name: begun}, None).folders[agent.name]
    # In the run's own folder: they are of this run and no other.
    document, kept = record(agent.name, folder), folder.path / "best_of.json"
    points = json.loads(kept.read_text())["points"] if kept.exists() else []
    for policy in ("policy", "prior"):
        for count in BEST_OF:
            settings = {"policy": policy, "best_of": count}
            if not any(point["settings"] == settings for point in points):
                members = judge(folder, episodes=50, policy=policy, best_of=count).to_json()
                found = members["members"]
                for member in found:
                    del member["episodes"]
                points.append(
                    {"settings": settings, "success": mean_over(found, "success"), "members": found}
                )
                write_json(kept, {"points": points})
    del document["members"]
    return {**document, "points": points}


def df(options: argparse.Namespace) -> Document:
    """Both forms, one seed, three values of rho in a family, and T of 5 and 10."""
    points = []
    for cls in (DFDir, DFDiv):
        for steps in STEPS:
            agent = cls(**SIZES, integration_steps=steps, behavior_steps=25_000, value_steps=10_000)
            out = options.runs / "df" / f"{agent.name}-{steps}"
            choice: dict[str, Any] = {"over": {"rho": RHOS}, "steps": 4000, "eval_every": 1000}
            document = run(agent, out, options, seeds=(0,), **choice)
            for point in document["points"]:
                point["settings"] = {"agent": agent.name, "T": steps, **point["settings"]}
            points += document["points"]
    shared = ("task", "steps", "seeds", "over", "score", "provenance")
    mark_best(points)
    return {**{name: document[name] for name in shared}, "points": points}


def draw(axes: Axes, points: Sequence[Document], name: str, label: str) -> None:
    """Success over one setting: means, deviations, and the seeds as dots."""
    values = [point["settings"][name] for point in points]
    learnt = [name == "fixed_alpha" and value == 0 for value in values]
    mean = [100 * point["success"]["mean"] for point in points]
    deviation = [100 * point["success"]["std"] for point in points]
    (line,) = axes.plot([], [])
    color = line.get_color()
    for x, m, d, apart in zip(range(len(points)), mean, deviation, learnt, strict=True):
        axes.errorbar(x, m, d, marker="D" if apart else "o", capsize=3, color=color)
    kept = [x for x, apart in enumerate(learnt) if not apart]  # A learnt one is on no scale.
    axes.plot(kept, [mean[x] for x in kept], color=color, label=label)
    for at, point in enumerate(points):
        seeds = [100 * member["success"] for member in point["members"]]
        axes.plot([at] * len(seeds), seeds, ".", color=color, alpha=0.4)
    ticks = ["learnt" if apart else f"{v:g}" for v, apart in zip(values, learnt, strict=True)]
    axes.set_xticks(range(len(points)), ticks)


def picture(study: str, document: Document, path: Path) -> None:
    """A line for each group of points over the setting that the study is about."""
    name = {"delta": "delta", "alpha": "fixed_alpha", "best-of": "best_of", "df": "rho"}[study]
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    groups: dict[str, list[Document]] = {}
    for point in document["points"]:
        others = {k: v for k, v in point["settings"].items() if k != name}
        label = ", ".join(str(v) if k != "T" else f"T = {v}" for k, v in others.items())
        groups.setdefault({"prior": "base flow"}.get(label, label), []).append(point)
    for label, points in groups.items():
        draw(axes, points, name, label)
    axes.set_xlabel({"fixed_alpha": "multiplier", "best_of": "best of"}.get(name, name))
    axes.set_ylabel("success (%)")
    axes.set_ylim(-3, 103)
    axes.grid(alpha=0.3)
    if len(groups) > 1:
        axes.legend()
    axes.set_title("cube-single task 1, 300 episodes, 3x256")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


STUDIES: dict[str, Callable[[argparse.Namespace], Document]] = {
    "delta": delta,
    "alpha": alpha,
    "best-of": best_of,
    "df": df,
}


def main() -> None:
    """The named studies, one after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="*", metavar="STUDY", default=list(STUDIES))
    parser.add_argument("--runs", type=Path, default=Path("runs/robustness"))
    parser.add_argument("--data-dir", type=Path, default=Path("runs/schedules/data"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    generate("cube-single-play-v0", episodes=300, workers=2, data_dir=options.data_dir)
    for study in options.studies:
        command = f"python benchmarks/robustness.py {study}"
        document = committed(STUDIES[study](options), command)
        name = study.replace("-", "_")
        write_result(options.results / f"{name}.json", document)
        picture(study, document, options.images / f"{name}.png")
        for point in document["points"]:
            print(study, point["settings"], point["success"], flush=True)


if __name__ == "__main__":
    main()
