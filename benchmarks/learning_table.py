"""Every system on one task: `python benchmarks/learning_table.py`.

Cube-single task 1, 300 generated episodes, 3x256 (2x256 where that is published: IDQL's and SRPO's
critics, unstable with more), three seeds, published settings otherwise: 50,000 gradient steps,
20,000 for systems whose step costs more than twice DeFlow's (a step of each of its phases taken
together). Five evaluations are spread over them; the last three are the score. It takes many hours
on two cores: what is trained is kept, what was stopped goes on, and after each system the table of
all that are finished is written to `benchmarks/results/learning_table.json`, its curves to
`docs/images/learning_table.png`. What that file holds of other systems stays in it, as does what it
holds of a system's other seeds. `--agents` takes some of them, `--seeds` some seeds, each choice
into `--runs` of its own, and `--report` only writes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from committed import command_of, committed, curve, gathered, write_result
from deflow.agents.registry import from_settings, preset
from deflow.data.generate import generate
from deflow.experiments.lineup import mark_best, record, train_all
from deflow.experiments.report import draw_curves
from deflow.training.config import TrainConfig
from deflow.training.run_folder import RunFolder
from deflow.training.task import env_name
from schedules import TASK

COMMAND = "python benchmarks/learning_table.py"
ARITHMETIC = "TFLOP of training, one seed"
USUAL = {"seeds": (0, 1, 2)}
STEPS = {
    **dict.fromkeys(("bc", "ifql", "rebrac", "iql", "fql", "deflow", "fawac", "df-dir"), 50_000),
    **dict.fromkeys(("fbrac", "cac"), 50_000),
    **dict.fromkeys(("df-div", "idql", "srpo", "floq", "deflow-floq"), 20_000),
}
"""Gradient steps of each phase (a diffusion's behaviour has twice as many), the cheapest systems
first. A step of DeFlow is 2.8 GFLOP; one of each phase together is 5.9 for IDQL, 6.7 for df-div,
8.1 for SRPO, 15.8 and 42 for those with a flow critic: these have fewer."""
WIDTHS = (256, 256, 256)
CHOSEN: dict[str, dict[str, Any]] = {"df-dir": {"rho": 0.01}}
"""What no paper states: the best of three on this task (`benchmarks/results/df.json`), so that
Decision Flow's direction form is tuned here as the papers tuned theirs. The divergence form's best
is its default."""
EVALUATED = 50
"""Episodes of a seed's score that have luck of their own: its last three evaluations play the same
fifty, with other weights."""


def config(name: str, options: argparse.Namespace) -> TrainConfig:
    """Three seeds of one system with its published settings for cube-single."""
    published = preset(name, env_name(TASK))
    hidden = min(tuple(published.get("hidden", WIDTHS)), WIDTHS)  # Fewer layers compare as less.
    settings = {**published, **CHOSEN.get(name, {}), "hidden": hidden}
    return TrainConfig(
        task=TASK,
        agent=from_settings(name, settings),
        seeds=tuple(options.seeds),
        steps=STEPS[name],
        eval_every=STEPS[name] // 5,
        checkpoint_every=STEPS[name] // 5,
        run_dir=options.runs / name,
        data_dir=options.data_dir,
    )


def interval(scores: list[float]) -> list[float]:
    """95% of what the mean could be with other seeds and other episodes: seeds are resampled, and
    each one's rate of success is drawn as `EVALUATED` episodes leave it open (Jeffreys' beta).

    Start states and action noise are the same fifty in every evaluation and for every seed. The
    interval takes an evaluation's episodes as independent and seeds as if each had met episodes of
    its own; what the shared ones have in common, easier starts than usual, it does not cover. Nor
    does it know more of other seeds than so few can tell.
    """
    rng, draws = np.random.default_rng(0), 10_000
    won = EVALUATED * rng.choice(np.asarray(scores), size=(draws, len(scores)))
    means = rng.beta(won + 0.5, EVALUATED - won + 0.5).mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    mean = np.mean(scores)  # Inside even where no episode, or every one, was a success.
    return [round(float(edge), 3) for edge in (min(low, mean), max(high, mean))]


def with_arithmetic(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """A record's evaluations, each with what its member's training had taken by then. Seconds would
    compare machines, and families of three with seeds alone."""
    before, start = {}, 0.0
    for phase in entry["phases"]:
        before[phase["phase"]] = start, phase["gflop_per_step"]
        start += phase["steps"] * phase["gflop_per_step"]
    found = []
    for point in entry["curve"]:
        start, gflop = before[point["phase"]]
        found.append({**point, ARITHMETIC: (start + point["step"] * gflop) / 1000})
    return found


def report(options: argparse.Namespace) -> None:
    """The table of all finished systems as JSON, as curves, and as lines for the page."""
    folders = {name: RunFolder(options.runs / name) for name in STEPS}
    fresh = [
        {
            **committed(record(name, folder), command_of(COMMAND, folder, USUAL)),
            "curve": curve(folder),
        }
        for name, folder in folders.items()
        if folder.finished()
    ]
    records = gathered(options.out, fresh, tuple(STEPS))
    if not records:
        return
    mark_best(records)
    for entry in records:
        entry["interval"] = interval([member["success"] for member in entry["members"]])
    document: dict[str, Any] = {
        "command": COMMAND,
        "task": TASK,
        "episodes_of_data": 300,
        "agents": sorted(records, key=lambda entry: -entry["success"]["mean"]),
        "missing": [name for name in STEPS if name not in {entry["name"] for entry in records}],
    }
    write_result(options.out, document)
    curves = [(entry["name"], with_arithmetic(entry)) for entry in records if entry["curve"]]
    draw_curves(curves, TASK, options.figure, "step", ARITHMETIC)
    for entry in document["agents"]:
        low, high = entry["interval"]
        print(
            f"| {entry['name']} | {entry['steps']:,} | {entry['success']['mean']:.2f} "
            f"({low:.2f} to {high:.2f}) | {entry['train_seconds']:,.0f} "
            f"| {entry['gflop_per_step']:.2f} |"
        )


def main() -> None:
    """Train what is left, system by system."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--seeds", type=int, nargs="+", default=USUAL["seeds"])
    parser.add_argument("--runs", type=Path, default=Path("runs/learning_table"))
    parser.add_argument("--data-dir", type=Path, default=Path("runs/schedules/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/learning_table.json"))
    parser.add_argument("--figure", type=Path, default=Path("docs/images/learning_table.png"))
    parser.add_argument("--report", action="store_true", help="only write what is there")
    options = parser.parse_args()
    if not options.report:
        generate("cube-single-play-v0", episodes=300, workers=2, data_dir=options.data_dir)
        for name in options.agents:
            train_all({name: config(name, options)}, None)
            report(options)
    report(options)


if __name__ == "__main__":
    main()
