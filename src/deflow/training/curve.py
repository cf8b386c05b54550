"""The learning-curve picture of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deflow.core.agent import ONLINE
from deflow.core.errors import DeFlowError
from deflow.core.files import written_whole
from deflow.training.config import TrainConfig
from deflow.training.family import members_of
from deflow.training.run_folder import RunFolder
from deflow.training.score import SCORES, score_name, with_failures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PICTURES = (".png", ".pdf", ".svg")
THIN = 0.8
"""The width of a single member's line."""


def plot_members(
    axes: Axes, records: Sequence[dict[str, Any]], x: str, label: str, score: str
) -> None:
    """Each member's evaluations by a score as a thin line, their mean as a thick one."""
    scale = SCORES[score].scale
    members: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        members.setdefault(record["member"], []).append(record)
    lines = [([r[x] for r in own], [scale * r[score] for r in own]) for own in members.values()]
    shortest = min(len(line[0]) for line in lines)
    mean_x = np.mean([line[0][:shortest] for line in lines], axis=0)
    mean_y = np.mean([line[1][:shortest] for line in lines], axis=0)
    (thick,) = axes.plot(mean_x, mean_y, marker="o", markersize=4, linewidth=2, label=label)
    if len(lines) > 1:
        for line in lines:
            axes.plot(*line, color=thick.get_color(), linewidth=THIN, alpha=0.5)


def by_settings(
    config: TrainConfig, records: Sequence[dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """A run's evaluations for each combination of its swept settings, under words that name it; all
    of them under none where nothing is swept."""
    words = {
        member.label: ", ".join(f"{name} {value:g}" for name, value in member.settings)
        for member in members_of(config.seeds, config.over)
    }
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(words[record["member"]], []).append(record)
    return groups


def hand_overs(records: Sequence[dict[str, Any]]) -> set[int]:
    """The total steps at which learning online began."""
    return {r["total_step"] - r["step"] for r in records if r["phase"] == ONLINE}


def mark_hand_over(axes: Axes, records: Sequence[dict[str, Any]]) -> None:
    """A line where learning online began, over `total_step`; runs that begin there have none."""
    for place in hand_overs(records) - {0}:
        axes.axvline(place, color="black", linestyle="--", linewidth=0.9, zorder=0)
        axes.annotate(
            "online",
            (place, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(4, -10),
            textcoords="offset points",
            fontsize=8,
        )


def step_label(records: Sequence[dict[str, Any]]) -> str:
    """What the `total_step` of these evaluations counts: steps of earlier phases, such as those of
    a flow that was trained first, are among them."""
    begun = hand_overs(records)
    if not begun:
        staged = any(record["step"] < record["total_step"] for record in records)
        return "gradient steps, all phases" if staged else "gradient steps"
    first = "" if begun == {0} else "gradient steps, then "
    return f"{first}steps in the environment"


def draw_curve(folder: RunFolder) -> None:
    """Write `curve.png`; a run that was never evaluated has none."""
    records = with_failures(folder.read_lines(folder.evaluations))
    if not records:
        return
    from matplotlib.figure import Figure

    config = folder.config()
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    count = len(config.seeds)
    label = f"{config.agent.name}, {config.schedule}, {count} seed{'s' * (count > 1)}"
    score = score_name(records)
    for words, own in by_settings(config, records).items():
        plot_members(axes, own, "total_step", words or label, score)
    mark_hand_over(axes, records)
    axes.set_title(config.task)
    axes.set_xlabel(step_label(records))
    name_axis(axes, score)
    axes.grid(alpha=0.3)
    axes.legend(title=label if config.over else None)
    save_figure(figure, folder.path / "curve.png")


def name_axis(axes: Axes, score: str) -> None:
    """What the vertical axis is; success is always seen from 0 to 100."""
    axes.set_ylabel(SCORES[score].label)
    if score == "success":
        axes.set_ylim(-3, 103)


def require_picture(option: str, path: Path) -> None:
    """Raise `DeFlowError` where a picture of that name cannot be written."""
    if path.suffix not in PICTURES:
        raise DeFlowError(f"{option} must end in .png, .pdf or .svg, but it is {path}.")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=150)
