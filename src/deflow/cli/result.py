"""What a training command prints at its end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deflow.training.run_folder import RunFolder


def show(folder: RunFolder, as_json: bool) -> None:
    """The run's scores, as a table or as one JSON document."""
    from deflow.experiments.report import position_of, print_report
    from deflow.training.summary import summarize

    if as_json:
        members = {"members": summarize(folder), "frozen": position_of(folder).get("frozen", [])}
        print(json.dumps({"run_dir": str(folder.path), **members}))
    else:
        print_report([folder])
