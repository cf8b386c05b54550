"""`deflow evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from deflow.cli.options import refuse_given
from deflow.cli.result import print_json

if TYPE_CHECKING:
    from deflow.training.off_policy import OffPolicy
    from deflow.training.run_folder import RunFolder

OF_PLAYING = ("episodes", "workers", "env", "video", "episode")
OF_DATA = ("fqe_steps", "held_out", "data", "held_out_data", "data_dir")


@dataclass
class Evaluate:
    """Play episodes with a trained run in its environment, or judge it by data alone.

    Environments and noise are fixed by (seed, episode, step): the same seed gives the same episodes
    whatever the number of workers.

    With --off-policy nothing is played: fitted Q evaluation estimates the policy's value where
    held-out episodes begin, beside statistics of the held-out data, with intervals over episodes.

    Examples:
      deflow evaluate runs/my-run --episodes 50
      deflow evaluate runs/my-run --policy prior
      deflow evaluate runs/my-run --policy prior --best-of 16
      deflow evaluate runs/my-run --video episode.gif
      deflow evaluate runs/robot --env my_module:make_env
      deflow evaluate runs/my-run --off-policy
      deflow evaluate runs/robot --off-policy --data my-data.npz --fqe-steps 50000
      deflow evaluate runs/robot --off-policy --data my-data.npz --held-out-data other.npz
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
    """Take the critic's favourite of so many actions (default: as the run was configured;
    of the base flow, 1)."""
    video: Path | None = None
    """Film one episode of the first member, before the others are played: .gif, .mp4, or .png for
    a strip of frames."""
    episode: int = 0
    """With --video: which episode to film."""
    workers: int = 0
    """Processes that step environments (0: one for each core)."""
    env: str | None = None
    """Your own environment, as module:make, where the run named none."""
    off_policy: bool = False
    """Judge the run by data alone, without an environment."""
    fqe_steps: int = 20_000
    """With --off-policy: gradient steps of the fitted Q evaluation."""
    held_out: float = 0.2
    """With --off-policy: the share of the episodes that the fit leaves out, of your own data or of
    a D4RL set (an OGBench set has a validation file)."""
    data: Path | None = None
    """With --off-policy: your own data, where the run was trained on a file."""
    held_out_data: Path | None = None
    """With --off-policy: other data of your own, laid out like those and not trained on, to be
    looked at instead of a share of them."""
    data_dir: Path | None = None
    """With --off-policy: where datasets are, if not where the run found them."""
    json: bool = False
    """Print one JSON document instead of text."""

    def run(self) -> int:
        from rich.console import Console
        from rich.table import Table

        from deflow.core.checks import require
        from deflow.experiments.report import score_text, scores_over
        from deflow.training.judge import film, judge
        from deflow.training.run_folder import RunFolder
        from deflow.training.score import SCORES

        self._check_given()
        require("episodes", self.episodes, at_least=1)
        folder = RunFolder.open(self.run_dir)
        if self.off_policy:
            return self._judge_by_data(folder)
        filmed = {}
        if self.video:
            # First, since a film may fail and takes but one episode.
            member = film(
                folder,
                self.video,
                episode=self.episode,
                seed=self.seed,
                policy=self.policy,
                best_of=self.best_of,
                env=self.env,
            )
            filmed = {"video": str(self.video), "filmed": member}
        found = judge(
            folder,
            episodes=self.episodes,
            seed=self.seed,
            workers=self.workers,
            policy=self.policy,
            best_of=self.best_of,
            env=self.env,
        )
        document = {**found.to_json(), "best_of": self.best_of, **filmed}
        document |= scores_over(document["members"])
        if self.json:
            print_json(document)
            return 0
        choice = f", best of {self.best_of}" if self.best_of else ""
        title = f"{folder.path.name}: {self.episodes} episodes of the {self.policy}{choice}"
        table = Table(title=title)
        members = document["members"]
        shown = [name for name in SCORES if members[0][name] is not None]
        for heading in ("member", *shown, "length"):
            table.add_column(heading, justify="right")
        for record in members:
            scores = (
                f"{SCORES[name].scale * record[name]:.1f}{SCORES[name].unit}" for name in shown
            )
            table.add_row(record["member"], *scores, f"{record['length']:.0f}")
        if len(members) > 1:
            length = sum(record["length"] for record in members) / len(members)
            scores = (score_text(document, name) for name in shown)
            table.add_row("mean ± deviation", *scores, f"{length:.0f}")
        console = Console()
        console.print(table)
        if filmed:
            console.print(
                f"Episode {self.episode} of {filmed['filmed']}: {self.video}", markup=False
            )
        return 0

    def _check_given(self) -> None:
        """Raise `DeFlowError` at an option that belongs to the other way of judging."""
        if self.off_policy:
            refuse_given(self, OF_PLAYING, "playing, and --off-policy plays nothing: leave one")
        else:
            refuse_given(self, OF_DATA, "judging by data: give --off-policy too")
        if not self.video:
            refuse_given(self, ("episode",), "a film: give --video too")
        if self.held_out_data:
            refuse_given(self, ("held_out",), "a share of the run's data: leave --held-out-data")

    def _judge_by_data(self, folder: RunFolder) -> int:
        from deflow.cli.options import own_again
        from deflow.core.checks import require
        from deflow.training.off_policy import off_policy

        require("fqe_steps", self.fqe_steps, at_least=1)
        found = off_policy(
            folder,
            dataset=self.data,
            steps=self.fqe_steps,
            seed=self.seed,
            share=self.held_out,
            policy=self.policy,
            best_of=self.best_of,
            unseen=own_again(folder, self.held_out_data),
            data_dir=self.data_dir,
        )
        if self.json:
            print_json({**found.to_json(), "best_of": self.best_of})
        else:
            _print_off_policy(found)
        return 0


def _print_off_policy(found: OffPolicy) -> None:
    from rich.console import Console
    from rich.table import Table

    from deflow.training.policy import transforms_of

    console = Console()
    for member in found.members:
        document = member.to_json()
        calibration = document["calibration"] or {}
        table = Table(title=f"{found.folder.path.name}, {member.member}", title_justify="left")
        table.add_column("held-out data")
        table.add_column("value", justify="right")
        table.add_column("95%", justify="right")
        for words, part in (
            (f"value of the {found.policy} (fitted Q)", document["value"]),
            ("returns in the data", document["returns"]),
            ("squared distance to data actions", document["action_distance"]),
            ("flow loss", document["flow_loss"]),
            ("slope of returns on Q", calibration.get("slope")),
            ("rank correlation of Q and returns", calibration.get("rank_correlation")),
            ("mean of Q - return", calibration.get("mean_error")),
        ):
            if part:
                low, high = part["interval"]
                table.add_row(words, _number(part["value"]), f"{_number(low)} to {_number(high)}")
        console.print(table)
        for reason in member.reasons.values():
            console.print(reason)
    document = found.held_out.to_json()
    console.print(
        f"Held out: {document['source']} ({document['episodes']:,} episodes, "
        f"{document['transitions']:,} transitions). Fitted on {document['fitted_transitions']:,} "
        f"transitions in {found.steps:,} steps."
    )
    if found.unsettled > 0.05:
        console.print(
            f"The fit has some {100 * found.unsettled:.0f}% of its way to these values still "
            "before it: give more --fqe-steps.",
            style="yellow",
        )
    units = transforms_of(found.folder)
    if (units.reward_scale, units.reward_shift) != (1.0, 0.0):
        console.print(
            "Values and returns are of the rewards that were learnt, "
            f"(r {units.reward_shift:+g}) times {units.reward_scale:g}."
        )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
