"""One agent over the values of its settings, in one family: a table, a picture, a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from deflow.core.files import write_json
from deflow.experiments.lineup import mark_best, record, train_all
from deflow.experiments.report import (
    judged_by,
    members_text,
    name_frozen,
    score_text,
    scores_over,
    steps_text,
)
from deflow.training.config import TrainConfig
from deflow.training.curve import name_axis, save_figure
from deflow.training.family import members_of
from deflow.training.score import SCORES
from deflow.training.source import Data


def sweep(config: TrainConfig, out: Path, dataset: Data = None) -> dict[str, Any]:
    """Train a family with swept settings, or go on with it, and sum it up over seeds.

    Returns the document that `out`/sweep.json holds: one of `points` for each combination of
    values, with its `settings`, `success` and `return` (mean and deviation over seeds) and
    `near_best`. The picture, `out`/sweep.png, shows the score over the first swept setting.

    Raises `DeFlowError` where the configuration is wrong or its folder holds another run.
    """
    name = config.agent.name
    folder = train_all({name: config}, dataset).folders[name]
    # As it was begun: the same settings in another order are the same run.
    document, config = record(name, folder), folder.config()
    by_label = {member["member"]: member for member in document.pop("members")}
    points: dict[tuple[tuple[str, float], ...], list[dict[str, Any]]] = {}
    for member in members_of(config.seeds, config.over):
        if member.label in by_label:
            points.setdefault(member.settings, []).append(by_label[member.label])
    diverged = {entry["member"]: entry for entry in document["frozen"]}
    document["over"] = {name: list(values) for name, values in config.over.items()}
    document["points"] = [
        {
            "settings": dict(settings),
            **scores_over(members),
            "members": members,
            "frozen": [diverged[m["member"]] for m in members if m["member"] in diverged],
        }
        for settings, members in points.items()
    ]
    document["score"] = mark_best(document["points"])
    document["figure"] = None
    if document["points"]:
        document["figure"] = str(out / "sweep.png")
        draw_sweep(document, out / "sweep.png")
    write_json(out / "sweep.json", document)
    return document


def print_sweep(document: dict[str, Any]) -> None:
    """The table; what is within 95% of the best stands in bold, with a star."""
    if not document["points"]:
        Console().print("No member was evaluated, so there is nothing to compare but the losses.")
        return
    score = document["score"]
    table = Table(
        title=f"{document['agent']} on {document['task']}: {judged_by(document['points'])}",
        caption="Mean ± deviation over seeds; * within 95% of the best. "
        f"One family, {document['train_seconds']:,.0f} s of training.",
        min_width=60,
    )
    for heading in (*document["over"], "seeds", score):
        table.add_column(heading, justify="right", no_wrap=True)
    for point in document["points"]:
        near = point["near_best"]
        table.add_row(
            *(f"{value:g}" for value in point["settings"].values()),
            members_text(len(point["members"]), point["frozen"]),
            ("* " if near else "") + score_text(point, score),
            style="bold" if near else "",
        )
    Console().print(table)
    name_frozen(document["name"], document["frozen"])


def draw_sweep(document: dict[str, Any], path: Path) -> None:
    """Score over the first swept setting; a line for each combination of the others.

    The axis is logarithmic where the values are positive and span a decade. Small dots are seeds.
    """
    from matplotlib.figure import Figure

    (swept, *others), score = document["over"], document["score"]
    scale = SCORES[score].scale
    lines: dict[str, list[dict[str, Any]]] = {}
    for point in sorted(document["points"], key=lambda point: point["settings"][swept]):
        label = ", ".join(f"{name} {point['settings'][name]:g}" for name in others)
        lines.setdefault(label, []).append(point)
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for label, points in lines.items():
        x = [point["settings"][swept] for point in points]
        mean = [scale * point[score]["mean"] for point in points]
        deviation = [scale * point[score]["std"] for point in points]
        bars = axes.errorbar(x, mean, deviation, marker="o", capsize=3, label=label or score)
        color = bars.lines[0].get_color()
        for at, point in zip(x, points, strict=True):
            seeds = [scale * member[score] for member in point["members"]]
            axes.plot([at] * len(seeds), seeds, ".", color=color, alpha=0.4)
    values = document["over"][swept]
    if min(values) > 0 and max(values) >= 10 * min(values):
        axes.set_xscale("log")
    axes.set_xlabel(swept)
    name_axis(axes, score)
    axes.set_title(f"{document['agent']} on {document['task']}, {steps_text(document)} steps")
    axes.grid(alpha=0.3)
    if others:
        axes.legend()
    save_figure(figure, path)
