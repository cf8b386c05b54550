"""What a script commits of a run, and what was committed before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deflow.core.errors import DeFlowError
from deflow.core.files import write_json
from deflow.experiments.report import scores_over
from deflow.training.run_folder import RunFolder, provenance

CURVE = ("member", "phase", "step", "total_step", "train_seconds", "success", "return")
"""What is kept of each evaluation: enough to draw it again."""
ALIKE = ("task", "schedule", "steps", "online_steps", "settings")
"""What seeds of one record have in common."""
PART = ("seeds", "train_seconds", "provenance")
"""What is kept of each part of a joined record."""

STARTED = datetime.now(UTC).isoformat(timespec="seconds")
"""When a script began: this module is read before any of its work."""


def made_by(command: str, dataset: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a script's result says of where it comes from; a run's own folder says it for a run."""
    return {**provenance(dataset or {}), "started": STARTED, "command": command}


def write_result(out: Path, document: dict[str, Any]) -> None:
    """A script's result, whole or not at all: it may hold the only copy of what others measured."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, document)


def committed(document: dict[str, Any], command: str) -> dict[str, Any]:
    """The library's document of a run without the folders of this machine, made by the script's own
    command: the words that a run was begun by name such folders too."""
    kept = {name: value for name, value in document.items() if name not in ("run_dir", "figure")}
    return {**kept, "provenance": {**document["provenance"], "command": command}}


def command_of(command: str, folder: RunFolder, usual: Mapping[str, Any]) -> str:
    """A script's command with the options that are not the usual ones, as the run itself tells."""
    config, words = folder.config(), [command]
    for name, value in usual.items():
        own = getattr(config, name)
        if own != value:
            words += [f"--{name.replace('_', '-')}", *(own if isinstance(own, tuple) else (own,))]
    return " ".join(map(str, words))


def curve(folder: RunFolder) -> list[dict[str, Any]]:
    """A run's evaluations, as they are committed."""
    return [
        {name: point[name] for name in CURVE} for point in folder.read_lines(folder.evaluations)
    ]


def gathered(
    out: Path, fresh: Sequence[dict[str, Any]], order: Sequence[str]
) -> list[dict[str, Any]]:
    """The records of `out` with fresh ones in the place of their namesakes, or `joined` with those
    of other seeds, in this order.

    The systems of one table are trained on several days, and on machines that do not keep the
    others' run folders or data. Sets of one recipe and seed differ there, since processors round
    differently: each record names its own. Raises `DeFlowError` where they differ in size.
    """
    before = json.loads(out.read_text())["agents"] if out.is_file() else []
    records = {record["name"]: record for record in before}
    for record in fresh:
        old = records.get(record["name"])
        records[record["name"]] = joined(old, record, out) if old else record
    sets = [record["provenance"]["dataset"] for record in records.values()]
    if len({(data["name"], data["episodes"], data["transitions"]) for data in sets}) > 1:
        raise DeFlowError(f"{out} holds records of other data: give another --out.")
    return [records[name] for name in order if name in records]


def joined(old: dict[str, Any], new: dict[str, Any], out: Path) -> dict[str, Any]:
    """One record over the members of both, less those of `old` whose seeds were trained anew.

    Three seeds of a slow system take longer than a machine may be there: they are trained one at a
    time, and `parts` says of each whence it is. Raises `DeFlowError` where what is to be joined is
    not alike, or seeds would be lost that `new` does not have.
    """
    parts = old.get("parts") or [{name: old[name] for name in PART}]
    kept = [part for part in parts if not {*part["seeds"]} & {*new["seeds"]}]
    lost = {seed for part in parts if part not in kept for seed in part["seeds"]} - {*new["seeds"]}
    if lost:
        raise DeFlowError(f"{out} has more seeds of {new['name']} than these: give another --out.")
    if not kept:
        return new
    if other := [name for name in ALIKE if old.get(name) != new.get(name)]:
        raise DeFlowError(
            f"{out} holds other seeds of {new['name']} with other {', '.join(other)}: give another "
            "--out."
        )
    seeds = {seed for part in kept for seed in part["seeds"]}
    before = [member for member in old["members"] if member["seed"] in seeds]
    names = {member["member"] for member in before}
    members = sorted([*before, *new["members"]], key=lambda member: member["seed"])
    parts = sorted([*kept, {name: new[name] for name in PART}], key=lambda part: part["seeds"])
    return {
        **new,
        "members": members,
        "count": len(members),
        "seeds": [seed for part in parts for seed in part["seeds"]],
        "frozen": [*(f for f in old["frozen"] if f["member"] in names), *new["frozen"]],
        "curve": [*(point for point in old["curve"] if point["member"] in names), *new["curve"]],
        **scores_over(members),
        "train_seconds": sum(part["train_seconds"] for part in parts),
        "parts": parts,
    }
