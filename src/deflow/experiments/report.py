"""Runs side by side: a table, and their curves on one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from deflow.core.errors import DeFlowError
from deflow.training import checkpoint
from deflow.training.config import ANYTHING
from deflow.training.curve import (
    THIN,
    by_settings,
    hand_overs,
    mark_hand_over,
    name_axis,
    plot_members,
    save_figure,
    step_label,
)
from deflow.training.family import members_of
from deflow.training.guard import Frozen
from deflow.training.run_folder import RunFolder
from deflow.training.score import SCORES, score_name, with_failures
from deflow.training.summary import summarize

Curve = tuple[str, list[dict[str, Any]]]
"""A run's name and its evaluations, as `evaluations.jsonl` holds them."""
X_LABELS = {"train_seconds": "seconds of training"}
"""What fields of an evaluation are called below an axis."""


def overview(folder: RunFolder) -> dict[str, Any]:
    """One record a run: mean and deviation over members of the last evaluations' mean; online, of
    the last evaluation and of the one `before`.

    `steps` are those on data, 0 of an agent that learns online alone; `frozen` says of each member
    that diverged where and in which term.
    """
    config, members, position = folder.config(), summarize(folder), position_of(folder)
    phases = config.agent.phases(ANYTHING, config.schedule)
    record: dict[str, Any] = {
        "run_dir": str(folder.path),
        "task": config.task,
        "agent": config.agent.name,
        "schedule": config.schedule,
        "steps": config.steps if phases else 0,
        "members": members,
        "count": len(members_of(config.seeds, config.over)),
        "frozen": list(position.get("frozen", [])),
        "finished": folder.ended(),
    }
    if config.online_steps:
        record["online_steps"] = config.online_steps
    record |= scores_over(members)
    seconds = (member["train_seconds"] for member in members)
    record["train_seconds"] = max(seconds, default=position.get("train_seconds"))
    return record


def together(
    folders: Sequence[RunFolder], records: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """From each folder's `overview`, another for all that differ in their seeds alone, as where
    these were spread over devices: over the members of all, with the seconds of all.

    There is none where a seed comes twice, the data differ, or not all members were judged, at the
    same steps. `run_dirs` are the folders; `run_dir` is None.
    """
    groups: list[list[int]] = []
    for index, folder in enumerate(folders):
        alike = (g for g in groups if all(_other_seeds(folder, folders[own]) for own in g))
        home = next(alike, None)
        if home is None:
            groups.append([index])
        else:
            home.append(index)
    found = []
    for parts in ([records[index] for index in group] for group in groups if len(group) > 1):
        members = [member for part in parts for member in part["members"]]
        count = sum(part["count"] for part in parts)
        if len(members) == count and len({tuple(m["mean_of_steps"]) for m in members}) == 1:
            found.append(
                {
                    **parts[0],
                    "run_dir": None,
                    "run_dirs": [part["run_dir"] for part in parts],
                    "members": members,
                    "count": count,
                    "frozen": [entry for part in parts for entry in part["frozen"]],
                    "finished": all(part["finished"] for part in parts),
                    **scores_over(members),
                    "train_seconds": sum(part["train_seconds"] for part in parts),
                }
            )
    return found


def _other_seeds(one: RunFolder, other: RunFolder) -> bool:
    """Whether two runs are the same but for their seeds, of which they share none."""
    a, b = one.config(), other.config()
    if a.differences(b) != ["seeds"] or {*a.seeds} & {*b.seeds}:
        return False
    return bool(one.dataset()["fingerprint"] == other.dataset()["fingerprint"])


def position_of(folder: RunFolder) -> dict[str, Any]:
    """Where a run stands and who diverged, as its end tells it, or else its newest checkpoint."""
    position: dict[str, Any] = {}
    kept = checkpoint.existing(folder.checkpoints)
    if folder.ended():
        position = folder.read_json("summary.json")["position"]
    elif kept:
        position = checkpoint.read_meta(kept[-1])["position"]
    return position


def members_text(count: int, frozen: Sequence[Any]) -> str:
    """How many members there are, and how many of them diverged, if any did."""
    return f"{count}, {len(frozen)} frozen" if frozen else str(count)


def name_frozen(run: str, frozen: Sequence[dict[str, Any]]) -> None:
    """A sentence for each member of a run that diverged."""
    for entry in frozen:
        Console(markup=False).print(f"{run}: {Frozen(**entry).sentence()}")


def steps_text(record: dict[str, Any]) -> str:
    """A record's steps on data, and in the environment, where it has such."""
    parts = [f"{record['steps']:,}"] if record["steps"] else []
    parts += [f"{record['online_steps']:,} online"] if "online_steps" in record else []
    return " + ".join(parts)


def scores_over(members: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Every score's mean over members; of those that went online also what it was `before`."""
    members = with_failures(members)
    found: dict[str, Any] = {score: mean_over(members, score) for score in SCORES}
    begun = with_failures([member["before"] for member in members if "before" in member])
    if begun:
        found["before"] = {score: mean_over(begun, score) for score in SCORES}
    return found


def judged_by(records: Sequence[dict[str, Any]]) -> str:
    """What the scores of these records are."""
    if any("before" in record for record in records):
        return "before learning online → after it"
    points = all(record.get("points") for record in records)
    return "last evaluation" if points else "mean of the last three evaluations"


def mean_over(members: Sequence[dict[str, Any]], score: str) -> dict[str, Any] | None:
    """Mean and deviation of a score over the members that have one."""
    values = [m[score] for m in members if m.get(score) is not None]
    if not values:
        return None
    return {"mean": float(np.mean(values)), "std": float(np.std(values)), "members": len(values)}


def print_report(folders: Sequence[RunFolder]) -> None:
    """The table: success in percent where the environment reports it, and the mean return.

    Runs that differ in their seeds alone have a further row, of all their members. Members that
    diverged are counted beside the others, and named below.
    """
    names = {str(folder.path): folder.path.name for folder in folders}
    own = [overview(folder) for folder in folders]
    records = [*own, *together(folders, own)]
    online = any("before" in record for record in records)
    captions = ["Online: the evaluation before → the last one."] if online else []
    if any(not record["members"] for record in records):
        captions.append("A run without a score was not evaluated, or not yet.")
    table = Table(
        title="Mean of the last three evaluations (D4RL: the last); mean and deviation over n "
        "members",
        caption=" ".join(captions) or None,
    )
    # So many that what is left fits a narrow terminal.
    count = 1 if online else 2
    shown = [score for score in SCORES if any(record[score] for record in records)][:count]
    for heading in ("run", "task", "agent", "n", *shown, "training"):
        words = heading in ("run", "task", "agent")
        table.add_column(
            heading,
            justify="left" if words else "right",
            overflow="fold",
            no_wrap=not words,
            min_width=10 if words else None,
        )
    for record in records:
        seconds = record["train_seconds"]
        table.add_row(
            " + ".join(names[path] for path in record.get("run_dirs", [record["run_dir"]])),
            record["task"],
            f"{record['agent']}\n{record['schedule']}",
            members_text(record["count"], record["frozen"]),
            *(score_text(record, score) for score in shown),
            f"{seconds:,.0f} s" if seconds is not None else "-",
        )
    Console().print(table)
    for record in own:
        name_frozen(names[record["run_dir"]], record["frozen"])


def draw_report(folders: Sequence[RunFolder], path: Path, *xs: str) -> None:
    """`draw_curves` of what these folders hold, a curve for each combination of swept settings."""
    tasks: set[str] = set()
    curves: list[Curve] = []
    for folder in folders:
        config = folder.config()
        records = with_failures(folder.read_lines(folder.evaluations))
        for words, own in by_settings(config, records).items():
            curves.append((", ".join(filter(None, (folder.path.name, words))), own))
            tasks.add(config.task)
    draw_curves(curves, ", ".join(sorted(tasks)), path, *xs)


def draw_curves(runs: Sequence[Curve], title: str, path: Path, *xs: str) -> None:
    """Every run's evaluations on one picture, over `step` (the default), `train_seconds` or any
    other field of theirs, which then names its axis; of several, a panel each.

    Where some went online, steps are counted through, and a line marks the hand-over, at which
    runs that learnt online alone begin. Up to six runs show their members as thin lines; of more,
    the means alone can be told apart. Raises `DeFlowError` where none was evaluated.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    runs = [(name, records) for name, records in runs if records]
    if not runs:
        raise DeFlowError("None of the runs has been evaluated yet, so there is no curve to draw.")
    xs = xs or ("step",)
    figure = Figure(figsize=(1.5 + 5.5 * len(xs), 4.2), layout="constrained")
    panels = figure.subplots(1, len(xs), sharey=True, squeeze=False)[0]
    colors = colormaps["tab10"](range(10)) if len(runs) <= 10 else colormaps["tab20"](range(20))
    runs = _side_by_side(runs)
    every = [record for _, records in runs for record in records]
    score = score_name(every)
    for axes, x in zip(panels, xs, strict=True):
        over = "total_step" if x == "step" else x
        axes.set_prop_cycle(color=colors)
        for name, records in runs:
            plot_members(axes, records, over, name, score)
        if over == "total_step":
            mark_hand_over(axes, every)
        if len(runs) > 6:
            for line in [line for line in axes.lines if line.get_linewidth() == THIN]:
                line.remove()
        name_axis(axes, score)
        axes.set_xlabel(step_label(every) if x == "step" else X_LABELS.get(x, x))
        axes.grid(alpha=0.3)
    for axes in panels[1:]:
        axes.set_ylabel("")
    figure.suptitle(title)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    save_figure(figure, path)


def _side_by_side(runs: list[Curve]) -> list[Curve]:
    """The runs, those that began online moved to where the others went online, if that is one
    place."""
    places = {place for _, records in runs for place in hand_overs(records)}
    if len(places) != 2 or 0 not in places:
        return runs
    begun = max(places)

    def moved(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if hand_overs(records) != {0}:
            return records
        return [{**record, "total_step": record["total_step"] + begun} for record in records]

    return [(name, moved(records)) for name, records in runs]


def score_text(record: dict[str, Any], score: str) -> str:
    """A record's score as mean ± deviation, where it has one; online, from which one to which."""
    if "before" in record:
        before, after = record["before"], {score: record.get(score)}
        return f"{score_text(before, score)} → {score_text(after, score)}"
    found = record.get(score)
    if found is None:
        return "-"
    scale, unit, _ = SCORES[score]
    deviation = f" ± {scale * found['std']:.1f}" if found["members"] > 1 else ""
    return f"{scale * found['mean']:.1f}{deviation}{unit}"
