"""What a script commits of a run, and what was committed before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deflow.core.errors import DeFlowError
from deflow.core.files import write_json
from deflow.training.run_folder import RunFolder, provenance

CURVE = ("member", "phase", "step", "total_step", "train_seconds", "success")
"""What is kept of each evaluation: enough to draw it again."""


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


def curve(folder: RunFolder) -> list[dict[str, Any]]:
    """A run's evaluations, as they are committed."""
    return [
        {name: point[name] for name in CURVE} for point in folder.read_lines(folder.evaluations)
    ]


def gathered(
    out: Path, fresh: Sequence[dict[str, Any]], order: Sequence[str]
) -> list[dict[str, Any]]:
    """The records of `out` with fresh ones in the place of their namesakes, in this order.

    The systems of one table are trained on several days, and on machines that do not keep the
    others' run folders or data. Sets of one recipe and seed differ there, since processors round
    differently: each record names its own. Raises `DeFlowError` where they differ in size.
    """
    before = json.loads(out.read_text())["agents"] if out.is_file() else []
    records = {record["name"]: record for record in (*before, *fresh)}
    sets = [record["provenance"]["dataset"] for record in records.values()]
    if len({(data["name"], data["episodes"], data["transitions"]) for data in sets}) > 1:
        raise DeFlowError(f"{out} holds records of other data: give another --out.")
    return [records[name] for name in order if name in records]
