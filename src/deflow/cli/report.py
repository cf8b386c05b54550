"""`deflow report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from deflow.cli.options import refuse_given
from deflow.cli.result import print_json


@dataclass
class Report:
    """A table of runs, and their learning curves on one picture.

    A run's score is the mean of its last three evaluations, as OGBench's protocol has it (on D4RL,
    and after learning online: the last one). Runs that differ in their seeds alone have a
    further row, of all their members.

    Examples:
      deflow report runs/a runs/b
      deflow report runs/* --figure curves.png --x train_seconds
    """

    runs: Positional[tuple[Path, ...]]
    """Run folders; of several paths those that are none are left out."""
    figure: Path | None = None
    """Where to draw the curves: .png, .pdf or .svg."""
    x: Literal["step", "train_seconds"] = "step"
    """What the curves run over."""
    json: bool = False
    """Print one JSON document instead of text."""

    def run(self) -> int:
        from deflow.core.errors import DeFlowError
        from deflow.core.progress import console
        from deflow.experiments.report import draw_report, overview, print_report, together
        from deflow.training.curve import require_picture
        from deflow.training.run_folder import RunFolder

        if not self.runs:
            raise DeFlowError("Name at least one run: deflow report RUN.")
        if self.figure:
            require_picture("--figure", self.figure)
        else:
            refuse_given(self, ("x",), "a picture: give --figure too")
        given = [RunFolder(path) for path in self.runs]
        others = [str(folder.path) for folder in given if not folder.exists()]
        # Where none is a run, the first says what it lacks.
        folders = [f for f in given if f.exists()] or [RunFolder.open(path) for path in self.runs]
        if others:
            console.print(f"Left out, since no run is there: {', '.join(others)}.", style="yellow")
        if self.figure:  # First, since it may fail, and what is printed is then one document.
            draw_report(folders, self.figure, self.x)
        if self.json:
            records = [overview(folder) for folder in folders]
            print_json([*records, *together(folders, records)])
        else:
            print_report(folders)
        return 0
