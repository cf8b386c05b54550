"""Runs side by side: a table, and their curves on one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from deflow.core.errors import DeFlowError
from deflow.training.curve import plot_members, score_name
from deflow.training.run_folder import RunFolder
from deflow.training.summary import summarize


def overview(folder: RunFolder) -> dict[str, Any]:
    """One record a run: mean and deviation over members of the last evaluations' mean."""
    config, members = folder.config(), summarize(folder)
    record: dict[str, Any] = {
        "run_dir": str(folder.path),
        "task": config.task,
        "agent": config.agent.name,
        "schedule": config.schedule,
        "steps": config.steps,
        "members": members,
        "finished": (folder.path / "summary.json").is_file(),
    }
    for score in ("success", "return"):
        values = [m[score] for m in members if m[score] is not None]
        record[score] = (
            {"mean": float(np.mean(values)), "std": float(np.std(values)), "members": len(values)}
            if values
            else None
        )
    record["train_seconds"] = max((m["train_seconds"] for m in members), default=None)
    return record


def print_report(folders: Sequence[RunFolder]) -> None:
    """The table: success in percent where the environment reports it, and the mean return."""
    table = Table(title="Mean of the last three evaluations; mean and deviation over members")
    for heading in ("run", "task", "agent", "schedule", "members", "success", "return", "training"):
        table.add_column(
            heading, justify="left" if heading in ("run", "task") else "right", overflow="fold"
        )
    for folder in folders:
        record = overview(folder)
        seconds = record["train_seconds"]
        table.add_row(
            folder.path.name,
            record["task"],
            record["agent"],
            record["schedule"],
            str(len(record["members"])),
            _spread(record["success"], 100, "%"),
            _spread(record["return"], 1, ""),
            f"{seconds:,.0f} s" if seconds is not None else "-",
        )
    Console().print(table)


def draw_report(folders: Sequence[RunFolder], path: Path, x: str = "step") -> None:
    """Every run's evaluations on one picture; `x` is `step` or `train_seconds`."""
    from matplotlib.figure import Figure

    runs = [(folder, folder.read_lines(folder.evaluations)) for folder in folders]
    runs = [(folder, records) for folder, records in runs if records]
    if not runs:
        raise DeFlowError("None of the runs has been evaluated yet, so there is no curve to draw.")
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for folder, records in runs:
        plot_members(axes, records, x, folder.path.name)
    success = all(score_name(records) == "success" for _, records in runs)
    axes.set_ylabel("success (%)" if success else "return")
    if success:
        axes.set_ylim(-3, 103)
    axes.set_xlabel("gradient steps" if x == "step" else "seconds of training")
    axes.set_title(", ".join(sorted({folder.config().task for folder, _ in runs})))
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _spread(score: dict[str, float] | None, scale: float, unit: str) -> str:
    if score is None:
        return "-"
    mean = f"{scale * score['mean']:.1f}"
    spread = f" ± {scale * score['std']:.1f}" if score["members"] > 1 else ""
    return f"{mean}{spread}{unit}"
