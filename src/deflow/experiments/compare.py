"""Several agents on one task: one table, one picture, one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from deflow.core.errors import DeFlowError
from deflow.core.files import write_json
from deflow.core.progress import console
from deflow.experiments.lineup import mark_best, record, train_all
from deflow.experiments.report import (
    draw_report,
    judged_by,
    members_text,
    name_frozen,
    score_text,
    steps_text,
)
from deflow.training.config import TrainConfig
from deflow.training.run_folder import RunFolder
from deflow.training.source import Data


def compare(configs: Mapping[str, TrainConfig], out: Path, dataset: Data = None) -> dict[str, Any]:
    """Train each named configuration in `out`/name, go on where it stopped, and compare them.

    Returns the document that `out`/compare.json holds: one record for each, with `success` and
    `return` (mean and deviation over members), `near_best` (within 95% of the best), the wall
    seconds of training all members, and GFLOP per gradient step of one member; and of those that
    `failed` on their way, why. The curves are in `out`/compare.png.

    Raises `DeFlowError` where a configuration is wrong, its folder holds another run, or none could
    be trained.
    """
    trained = train_all(configs, dataset)
    records = [record(name, folder) for name, folder in trained.folders.items()]
    document = {"task": records[0]["task"], "score": mark_best(records), "agents": records}
    document["failed"] = trained.failed
    document["figure"] = _draw(list(trained.folders.values()), out / "compare.png")
    write_json(out / "compare.json", document)
    return document


def print_comparison(document: dict[str, Any]) -> None:
    """The table; what is within 95% of the best stands in bold, with a star."""
    agents, score = document["agents"], document["score"]
    table = Table(
        title=f"{document['task']}: {judged_by(agents)}",
        caption="Mean ± deviation over seeds; * within 95% of the best. Training: wall time, all "
        "seeds together. GFLOP: matrix products of a gradient step of one seed, averaged over "
        "phases; a delayed update counts as if it were made at every step.",
    )
    for heading in ("agent", "schedule", "seeds", "steps", score, "training", "GFLOP/step"):
        table.add_column(
            heading,
            justify="left" if heading == "agent" else "right",
            overflow="fold" if heading == "agent" else "ellipsis",
            no_wrap=heading != "agent",
        )
    for r in agents:
        table.add_row(
            r["name"],
            r["schedule"],
            members_text(len(r["seeds"]), r["frozen"]),
            steps_text(r),
            ("* " if r["near_best"] else "") + score_text(r, score),
            f"{r['train_seconds']:,.0f} s",
            f"{r['gflop_per_step']:.3g}",
            style="bold" if r["near_best"] else "",
        )
    Console().print(table)
    for r in agents:
        name_frozen(r["name"], r["frozen"])


def _draw(folders: list[RunFolder], path: Path) -> str | None:
    """The curves over steps and over seconds; None where nothing has been evaluated."""
    try:
        draw_report(folders, path, "step", "train_seconds")
    except DeFlowError as error:
        console.print(str(error), style="yellow")
        return None
    return str(path)
