"""Does evaluation without an environment order policies as playing does?

    python benchmarks/off_policy.py

Trains DeFlow on cube-single task 1 (300 generated episodes, 3x256, three seeds in one program),
keeps ten checkpoints and plays 50 episodes with each; then fits every checkpoint's value by data
alone. Writes Spearman's rank correlation of fitted values and true success, over all checkpoints,
over those of the second half and within each seed, whatever it is, to
`benchmarks/results/off_policy.json`, and the points to `docs/images/off_policy.png`. Its interval
is a bootstrap over checkpoints, as if each were a policy of its own. What is trained or fitted is
kept, what was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from deflow.agents.deflow import DeFlow
from deflow.core.files import write_json
from deflow.data.generate import generate
from deflow.experiments.lineup import train_all
from deflow.training import checkpoint
from deflow.training.bootstrap import bootstrap, rank_correlation_of
from deflow.training.config import TrainConfig
from deflow.training.curve import save_figure
from deflow.training.off_policy import off_policy
from deflow.training.run_folder import RunFolder
from schedules import TASK

COMMAND = "python benchmarks/off_policy.py"
CHECKPOINTS = 10
COLUMNS = {
    "fitted Q evaluation": "value",
    "mean of Q - return": "mean_error",
    "rank correlation of Q and returns": "rank_correlation",
    "squared distance to data": "action_distance",
    "flow loss": "flow_loss",
}
"""What might order policies, the first of which is the one that is meant to."""


def trained(options: argparse.Namespace) -> RunFolder:
    """The run with its checkpoints and evaluations, each at the same steps; one of other settings
    is refused."""
    every = options.steps // CHECKPOINTS
    config = TrainConfig(
        task=TASK,
        agent=DeFlow(hidden=tuple(options.hidden), learning_rate=1e-3, delta=0.003),
        schedule="joint",
        seeds=(0, 1, 2),
        steps=every * CHECKPOINTS,
        eval_every=every,
        checkpoint_every=every,
        eval_episodes=options.eval_episodes,
        keep_checkpoints=CHECKPOINTS,
        run_dir=options.runs / "deflow",
        data_dir=options.data_dir,
    )
    return train_all({"deflow": config}, None).folders["deflow"]


def alone(folder: RunFolder, kept: Path, place: Path) -> RunFolder:
    """A run folder that ends with one of the checkpoints."""
    single = RunFolder(place / kept.name)
    shutil.rmtree(single.path, ignore_errors=True)
    single.checkpoints.mkdir(parents=True)
    for name in ("config.json", "spec.json", "provenance.json"):
        shutil.copy(folder.path / name, single.path / name)
    shutil.copytree(kept, single.checkpoints / kept.name)
    return single


def judged(
    folder: RunFolder, options: argparse.Namespace
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How values were fitted, and a record for each seed's checkpoints; each is fitted once."""
    played = {(r["total_step"], r["member"]): r for r in folder.read_lines(folder.evaluations)}
    records, place = [], folder.path / "judged"
    place.mkdir(exist_ok=True)
    for kept in checkpoint.existing(folder.checkpoints):
        file = place / f"{kept.name}-{options.fqe_steps}.json"
        if not file.exists():
            single = alone(folder, kept, place)
            found = off_policy(single, steps=options.fqe_steps, data_dir=options.data_dir)
            write_json(file, found.to_json())
            shutil.rmtree(single.path)
        document = json.loads(file.read_text())
        step = int(kept.name.removeprefix("step-"))
        for member in document["members"]:
            calibration = member["calibration"] or {}
            numbers = {name: member.get(name) or calibration.get(name) for name in COLUMNS.values()}
            records.append(
                {
                    "step": step,
                    "member": member["member"],
                    "success": played[step, member["member"]]["success"],
                    **{name: part and part["value"] for name, part in numbers.items()},
                    "value_interval": member["value"]["interval"],
                    "disagreement": member["disagreement"],
                }
            )
    return document["fqe"], records


def correlations(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Rank correlation with success of everything that was measured: over all, over the second half
    of training, where policies differ less, and by seed."""
    found: dict[str, Any] = {}
    half = max(record["step"] for record in records) / 2
    for words, name in COLUMNS.items():
        usable = [record for record in records if record[name] is not None]
        groups = {"all": usable, "second half": [r for r in usable if r["step"] > half]}
        for record in usable:
            groups.setdefault(record["member"], []).append(record)
        found[words] = {
            group: {"points": len(own), **_correlation(own, name)} for group, own in groups.items()
        }
    return found


def _correlation(records: list[dict[str, Any]], name: str) -> dict[str, Any]:
    values, success = ([record[key] for record in records] for key in (name, "success"))
    if not records:
        return {"value": None, "interval": [None, None]}
    return bootstrap(rank_correlation_of(values, success), np.arange(len(records))).to_json()


def draw(records: list[dict[str, Any]], overall: dict[str, Any], path: Path) -> None:
    """Fitted values against true success, a colour for each seed."""
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    for label in sorted({record["member"] for record in records}):
        own = [record for record in records if record["member"] == label]
        values = np.asarray([record["value"] for record in own])
        edges = np.asarray([record["value_interval"] for record in own]).T
        axes.errorbar(
            [100 * record["success"] for record in own],
            values,
            yerr=np.abs(edges - values),
            marker="o",
            linestyle="none",
            capsize=2,
            label=label,
        )
    rank, (low, high) = overall["value"], overall["interval"]
    words = "not defined" if rank is None else f"{rank:.2f} ({low:.2f} to {high:.2f})"
    axes.set_title(f"cube-single task 1, ten checkpoints: rank correlation {words}", size=10)
    axes.set_xlabel("true success over the run's evaluation episodes (%)")
    axes.set_ylabel("value by fitted Q evaluation")
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)


def main() -> None:
    """Train, fit, correlate and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--fqe-steps", type=int, default=10_000)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 256, 256])
    parser.add_argument("--eval-episodes", type=int, default=50)
    parser.add_argument("--runs", type=Path, default=Path("runs/off_policy"))
    parser.add_argument("--data-dir", type=Path, default=Path("runs/schedules/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/off_policy.json"))
    parser.add_argument("--figure", type=Path, default=Path("docs/images/off_policy.png"))
    options = parser.parse_args()
    generate("cube-single-play-v0", episodes=300, workers=2, data_dir=options.data_dir)
    folder = trained(options)
    fqe, records = judged(folder, options)
    found = correlations(records)
    document = {
        "command": COMMAND,
        "task": TASK,
        "episodes_of_data": 300,
        "steps": folder.config().steps,
        "fqe": fqe,
        "rank_correlation_with_success": found,
        "checkpoints": records,
        "provenance": {**folder.read_json("provenance.json"), "command": COMMAND},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, document)
    overall = found["fitted Q evaluation"]["all"]
    draw(records, overall, options.figure)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
