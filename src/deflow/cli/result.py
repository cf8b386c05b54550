"""What a command prints at its end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deflow.training.run_folder import RunFolder


def print_json(document: Any) -> None:
    """The one JSON document of a command, on a line of its own."""
    print(json.dumps(document))


def show(folder: RunFolder, as_json: bool) -> None:
    """The run's scores, as a table or as one JSON document."""
    from deflow.experiments.report import position_of, print_report
    from deflow.training.summary import summarize

    if as_json:
        members = {"members": summarize(folder), "frozen": position_of(folder).get("frozen", [])}
        print_json({"run_dir": str(folder.path), **members})
    else:
        print_report([folder])
