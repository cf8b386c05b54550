"""An ant's expert, a maze that it walks, a policy learnt from that: `python benchmarks/ant.py`.

Trains SAC on OGBench's ant for 400,000 steps (or takes the run as far as it has come, with
`--as-it-is`), lets it walk 50 episodes of antmaze-medium by the official recipe, reads the set with
OGBench's own loader, and trains DeFlow on it (3x256, flow-first; the settings published for
antmaze-large, since nothing is published for medium). What is there is kept, what was stopped goes
on. Writes `benchmarks/results/ant.json` and `docs/images/ant_expert.png`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import ogbench

from committed import write_result
from deflow.agents.deflow import DeFlow
from deflow.agents.registry import preset
from deflow.agents.sac import SAC
from deflow.data.generate import generate
from deflow.data.names import parse_task
from deflow.data.ogbench import load_task
from deflow.envs.make import WALKING_ANT
from deflow.experiments.lineup import train_all
from deflow.experiments.report import draw_report, overview
from deflow.training.ant_expert import ant_expert
from deflow.training.config import TrainConfig
from deflow.training.judge import judge
from deflow.training.run_folder import RunFolder

SET = "antmaze-medium-navigate-v0"
TASK = "antmaze-medium-navigate-singletask-task{}-v0"


def expert(options: argparse.Namespace) -> RunFolder:
    """The expert's run, at its end or as far as it has come; one of other settings is refused."""
    folder = RunFolder(options.runs / "expert")
    config = TrainConfig(
        task=WALKING_ANT,
        agent=SAC(),
        online_steps=400_000,
        eval_every=25_000,
        eval_episodes=20,
        checkpoint_every=50_000,
        run_dir=folder.path,
    )
    if options.as_it_is and folder.exists():
        folder.refuse_other(config, "choose another --runs")
        return folder
    return train_all({"expert": config}, None).folders["expert"]


def walked(file: Path) -> dict[str, Any]:
    """What OGBench's own loader finds in the set, and how often each task is solved in it."""
    name = TASK.format(1)
    _, data, validation = ogbench.make_env_and_datasets(name, dataset_path=str(file))
    found = {key: list(data[key].shape) for key in ("observations", "actions", "rewards")}
    solved = {}
    for number in range(1, 6):
        dataset, _ = load_task(parse_task(TASK.format(number)), file.parent)
        solved[f"task{number}"] = int((dataset.masks[dataset.rows] == 0).sum())
    moved = np.linalg.norm(data["next_observations"][:, :2] - data["observations"][:, :2], axis=1)
    return {
        "read_by_ogbench": found,
        "validation_rows": len(validation["observations"]),
        "rows_that_solve": solved,
        "metres_a_step": round(float(moved.mean()), 4),
    }


def policy(options: argparse.Namespace, data_dir: Path) -> RunFolder:
    """DeFlow on the first task of the set; a run of other settings is refused."""
    settings = {**preset("deflow", "antmaze-large"), "hidden": (256, 256, 256)}
    config = TrainConfig(
        task=TASK.format(1),
        agent=DeFlow(**settings, prior_steps=options.steps, learning_rate=1e-3),
        schedule="flow-first",
        steps=options.steps,
        eval_every=options.steps // 2,
        eval_episodes=20,
        run_dir=options.runs / "deflow",
        data_dir=data_dir,
    )
    return train_all({"deflow": config}, None).folders["deflow"]


def main() -> None:
    """Expert, walk, policy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/antmaze"))
    parser.add_argument("--as-it-is", action="store_true", help="train the expert no further")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--steps", type=int, default=4000, help="of DeFlow's flow and policy")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ant.json"))
    parser.add_argument("--figure", type=Path, default=Path("docs/images/ant_expert.png"))
    options = parser.parse_args()
    run = expert(options)
    draw_report([run], options.figure, "step")
    judgement = judge(run, episodes=50).to_json()
    (member,) = judgement["members"]
    returns = [episode["return"] for episode in member["episodes"]]
    data_dir = options.runs / "data"
    walker = ant_expert(run.path)
    generate(SET, episodes=options.episodes, workers=2, data_dir=data_dir, expert=walker)
    learnt = policy(options, data_dir)
    score = overview(learnt)
    document = {
        "command": "python benchmarks/ant.py" + " --as-it-is" * options.as_it_is,
        "expert": {
            "steps": judgement["position"]["step"],
            "return": {
                "mean": round(float(np.mean(returns)), 2),
                "standard_error": round(float(np.std(returns) / len(returns) ** 0.5), 2),
                "episodes": len(returns),
            },
            "fell": int(sum(episode["terminated"] for episode in member["episodes"])),
            "curve": [
                {"step": line["step"], "return": round(line["return"], 2)}
                for line in run.read_lines(run.evaluations)
            ],
            "provenance": run.read_json("provenance.json"),
        },
        "set": {"name": SET, "episodes": options.episodes, **walked(data_dir / f"{SET}.npz")},
        "deflow": {
            "task": TASK.format(1),
            "steps": learnt.config().steps,
            "success": score["success"],
            "train_seconds": score["train_seconds"],
            "settings": learnt.config().to_json()["agent"],
        },
    }
    write_result(options.out, document)
    print(json.dumps({name: document[name] for name in ("set", "deflow")}, indent=1))


if __name__ == "__main__":
    main()
