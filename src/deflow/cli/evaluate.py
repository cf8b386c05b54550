"""`deflow evaluate`."""

from __future__ import annotations

import json as jsonlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


@dataclass
class Evaluate:
    """Play episodes with a trained run in its environment.

    Environments and noise are fixed by (seed, episode, step): the same seed gives the same episodes
    whatever the number of workers.

    Examples:
      deflow evaluate runs/my-run --episodes 50
      deflow evaluate runs/my-run --policy prior
      deflow evaluate runs/my-run --policy prior --best-of 16
      deflow evaluate runs/my-run --video episode.gif
    """

    run_dir: Positional[Path]
    """The run's folder."""
    episodes: int = 50
    """Episodes of every member."""
    seed: int = 0
    """Seed of environments and noise."""
    policy: Literal["policy", "prior"] = "policy"
    """The trained policy, or its base flow alone."""
    best_of: int | None = None
    """Take the critic's favourite of so many actions (default: as the run was configured)."""
    video: Path | None = None
    """Film one episode: .gif, .mp4, or .png for a strip of frames."""
    episode: int = 0
    """Which episode to film."""
    workers: int = 0
    """Processes that step environments (0: one for each core)."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> int:
        from rich.console import Console
        from rich.table import Table

        from deflow.core.checks import require
        from deflow.training.judge import film, judge
        from deflow.training.run_folder import RunFolder

        require("episodes", self.episodes, at_least=1)
        folder = RunFolder.open(self.run_dir)
        found = judge(
            folder,
            episodes=self.episodes,
            seed=self.seed,
            workers=self.workers,
            policy=self.policy,
            best_of=self.best_of,
        )
        document = {**found.json(), "best_of": self.best_of}
        if self.video:
            film(folder, self.video, episode=self.episode, seed=self.seed, best_of=self.best_of)
            document["video"] = str(self.video)
        if self.json:
            print(jsonlib.dumps(document))
            return 0
        choice = f", best of {self.best_of}" if self.best_of else ""
        title = f"{folder.path.name}: {self.episodes} episodes of the {self.policy}{choice}"
        table = Table(title=title)
        for heading in ("member", "success", "return", "length"):
            table.add_column(heading, justify="right")
        for member, result in zip(found.members, found.results, strict=True):
            success = "-" if result.success is None else f"{100 * result.success:.0f}%"
            table.add_row(member, success, f"{result.return_:.1f}", f"{result.length:.0f}")
        Console().print(table)
        return 0
