"""`deflow landscape`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from deflow.cli.result import print_json


@dataclass(kw_only=True)
class Landscape:
    """Figure 2 of DeFlow: Q around a state, the base flow's samples, and where the policy goes.

    The plane goes through the mean of the first run's base samples; all runs share it and its
    limits, and each has its own contours of Q. Percentages on the axes are shares of those samples'
    variance. Base samples and actions share their noise. An arrow is DeFlow's residual; for FQL it
    leads from the flow's action to the one-step policy's; where the best of several is taken, from
    the first proposal to the chosen one.

    Examples:
      deflow landscape runs/deflow --state 1200
      deflow landscape runs/deflow runs/fql --state 1200 --plane random --out figure.png
      deflow landscape runs/mine --state 7 --data my-data.npz --member seed1
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, all trained on the same data."""
    state: int
    """The row of the runs' dataset whose state is looked at."""
    plane: Literal["principal", "random"] = "principal"
    """Along the directions in which the first run's base samples differ most, or random ones."""
    samples: int = 64
    """Actions drawn of each kind."""
    seed: int = 0
    """Seed of the noise, and of a random plane."""
    member: str | None = None
    """Which member of each run, by its label, such as seed0 (default: the first)."""
    out: Path = Path("landscape.png")
    """Where to draw it: .png, .pdf or .svg."""
    data: Path | None = None
    """Your own data, where the runs were trained on a file."""
    data_dir: Path | None = None
    """Where datasets are, if they have moved."""
    json: bool = False
    """Print one JSON document instead of text."""

    def run(self) -> int:
        from rich.console import Console
        from rich.table import Table

        from deflow.core.checks import require
        from deflow.core.errors import DeFlowError
        from deflow.experiments.landscape import Plane, draw, look
        from deflow.training.curve import require_picture
        from deflow.training.run_folder import RunFolder

        require("samples", self.samples, at_least=2)
        require("seed", self.seed, at_least=0, below=2**32)
        require_picture("--out", self.out)
        if not self.runs:
            raise DeFlowError("Name at least one run: deflow landscape RUN --state INDEX.")
        folders = [RunFolder.open(path) for path in self.runs]
        found = look(
            folders,
            self.state,
            dataset=self.data,
            samples=self.samples,
            seed=self.seed,
            member=self.member,
            data_dir=self.data_dir,
        )
        plane = Plane.through(found[0].base, self.plane, self.seed)
        draw(found, plane, self.out, f"{folders[0].config().task}, state {self.state}")
        records = [each.to_json() for each in found]
        if self.json:
            axes, center = plane.axes.tolist(), plane.center.tolist()
            document = {"figure": str(self.out), "state": self.state, "runs": records}
            print_json({**document, "plane": {"axes": axes, "center": center}})
            return 0
        table = Table(title=f"state {self.state}, means over {self.samples} samples: {self.out}")
        for heading in ("run", "agent", "Q of base", "Q of policy", "distance"):
            table.add_column(heading, justify="left" if heading in ("run", "agent") else "right")
        for r in records:
            numbers = (f"{r[name]:.3g}" for name in ("base_q", "refined_q", "distance"))
            table.add_row(r["run"], r["agent"], *numbers)
        Console().print(table)
        return 0
