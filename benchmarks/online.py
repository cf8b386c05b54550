"""Offline, then online (Table 2 in miniature): `python benchmarks/online.py`.

Cube-single task 1 from 300 generated episodes, 3x256, published settings otherwise: 20,000 gradient
steps on the data, then 20,000 steps in the environment, three seeds in lockstep. DeFlow's offline
run is gone on with twice, its prior learning and frozen; RLPD begins online. `--task` chooses
another task, `--agents` some of the systems. What is trained is kept, what was stopped goes on.
Writes `benchmarks/results/online_<environment>.json`, in which the records of other systems stay,
and `docs/images/online_<environment>.png`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from committed import command_of, committed, curve, gathered, write_result
from deflow.agents.registry import from_settings, preset, settings_of
from deflow.data.generate import generate
from deflow.data.names import parse_task
from deflow.experiments.lineup import record
from deflow.experiments.report import draw_curves, score_text
from deflow.training.config import TrainConfig
from deflow.training.finetune import finetune
from deflow.training.run_folder import RunFolder
from deflow.training.task import env_name
from deflow.training.train import resume, train
from schedules import TASK

AGENTS = ("deflow", "deflow-frozen", "fql", "iql", "calql", "rlpd")
USUAL = {"seeds": (0, 1, 2), "steps": 20_000, "online_steps": 20_000, "eval_episodes": 50}


def place(name: str, options: argparse.Namespace) -> RunFolder:
    """Where a system's run on this task is."""
    return RunFolder(options.runs / env_name(options.task) / name)


def settled(config: TrainConfig) -> RunFolder | None:
    """A run that was begun, at its end; None where it was not begun. Another's is refused."""
    assert config.run_dir is not None
    folder = RunFolder(config.run_dir)
    if not folder.exists():
        return None
    folder.refuse_other(config, "give the same to go on, or another --runs")
    return resume(folder.path)


def config(name: str, options: argparse.Namespace) -> TrainConfig:
    """Three seeds of one system with its published settings, on the data alone."""
    # Cal-QL's published settings for cubes are those of cube-double.
    environment = env_name(options.task)
    published = preset(name, environment, online=True)
    if name == "calql" and not published:
        published = preset(name, "cube-double", online=True)
    settings = {**published, "hidden": (256, 256, 256)}
    return TrainConfig(
        task=options.task,
        agent=from_settings(name, settings),
        seeds=tuple(options.seeds),
        steps=options.steps,
        eval_every=5000,
        checkpoint_every=5000,
        eval_episodes=options.eval_episodes,
        run_dir=options.runs / environment / f"{name}-offline",
        data_dir=options.data_dir,
    )


def run(name: str, options: argparse.Namespace) -> RunFolder:
    """One system, offline and online."""
    system, _, frozen = name.partition("-")
    path, begun = place(name, options).path, config(system, options)
    after = replace(begun, run_dir=path, online_steps=options.online_steps)
    if system == "rlpd":
        return settled(after) or train(after)
    settings = {"prior_online": "frozen"} if frozen else {}
    agent = from_settings(system, {**settings_of(begun.agent), **settings})
    offline = settled(begun) or train(begun)
    return settled(replace(after, agent=agent)) or finetune(
        offline.path, options.online_steps, run_dir=path, settings=settings
    )


def again(folder: RunFolder) -> str:
    """How a run is made again, as its own folder tells it."""
    episodes = folder.dataset()["episodes"]
    given = f"python benchmarks/online.py --task {folder.config().task} --episodes {episodes}"
    return command_of(given, folder, USUAL)


def report(options: argparse.Namespace) -> None:
    """The table of all finished systems as JSON and as lines for the page, and Figure 3."""
    folders = {name: place(name, options) for name in AGENTS}
    label = env_name(options.task).replace("-", "_")
    out = options.out or Path(f"benchmarks/results/online_{label}.json")
    fresh = [
        {**committed(record(name, folder), again(folder)), "curve": curve(folder)}
        for name, folder in folders.items()
        if folder.finished()
    ]
    records = gathered(out, fresh, AGENTS)
    if not records:
        return
    document: dict[str, Any] = {
        "task": options.task,
        "episodes_of_data": records[0]["provenance"]["dataset"]["episodes"],
        "agents": records,
        "missing": [name for name in AGENTS if name not in {entry["name"] for entry in records}],
    }
    write_result(out, document)
    curves = [(entry["name"], entry["curve"]) for entry in records]
    draw_curves(curves, options.task, Path(f"docs/images/online_{label}.png"), "step")
    for entry in records:
        print(
            f"| {entry['name']} | {score_text(entry, 'success')} | {entry['train_seconds']:,.0f} |"
        )


def main() -> None:
    """Train what is left, system by system."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default=TASK)
    parser.add_argument("--episodes", type=int, default=300, help="of the data")
    parser.add_argument("--agents", nargs="+", default=list(AGENTS), choices=AGENTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=USUAL["seeds"])
    parser.add_argument("--steps", type=int, default=USUAL["steps"])
    parser.add_argument("--online-steps", type=int, default=USUAL["online_steps"])
    parser.add_argument("--eval-episodes", type=int, default=USUAL["eval_episodes"])
    parser.add_argument("--runs", type=Path, default=Path("runs/online"))
    parser.add_argument("--data-dir", type=Path, default=Path("runs/schedules/data"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--report", action="store_true", help="only write what is there")
    options = parser.parse_args()
    if not options.report:
        dataset = parse_task(options.task).dataset
        generate(dataset, episodes=options.episodes, workers=2, data_dir=options.data_dir)
        for name in options.agents:
            run(name, options)
            report(options)
    report(options)


if __name__ == "__main__":
    main()
