"""`deflow data iav`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from deflow.cli.result import print_json
from deflow.cli.set_options import SetOptions

if TYPE_CHECKING:
    from deflow.data.iav import IAV


@dataclass
class Iav(SetOptions):
    """Estimate the intrinsic action variance of a set, by which DeFlow's delta is chosen.

    For each of many states, the variance of the actions at its nearest neighbours in the set, per
    action dimension. The published rule: delta is a tenth of it for manipulation, and all of it for
    navigation.

    Examples:
      deflow data iav cube-single-play-v0
      deflow data iav my_arrays.npz --neighbours 10 --no-same-trajectory
      deflow data iav log.parquet --columns observations=state episode=run
      deflow data iav log.npz --action-bounds -2 2 --normalize-observations
      deflow data iav puzzle-3x3-play-v0 --all-choices --json
    """

    dataset: Positional[str]
    """A set's name, a task's name, or your own data as `deflow data inspect` takes them; rewards
    and terminations are not needed."""
    normalize_observations: bool = False
    """Bring the observations of your file to mean 0 and deviation 1, as `deflow train` does."""
    neighbours: int = 5
    """States that a variance is taken over."""
    queries: int = 10_000
    """States whose neighbours are looked for."""
    seed: int = 0
    """Which states."""
    include_self: bool = True
    """Count the state itself among its neighbours."""
    same_trajectory: bool = True
    """Let neighbours belong to the state's own trajectory."""
    unbiased: bool = False
    """Divide by one less than the number of neighbours."""
    scale: Literal["raw", "standard"] = "raw"
    """Distances between observations as they are, or between standardised ones."""
    all_choices: bool = False
    """A table over all four of these, whatever they are set to."""

    def run(self) -> int:
        """Estimate it and print it beside the deltas that follow."""
        from deflow.core.device import require_device
        from deflow.data.iav import choices_table, intrinsic_action_variance
        from deflow.data.states import load_states

        require_device()
        data = load_states(
            self.dataset,
            self.data_dir,
            columns=self.columns,
            bounds=self.bounds,
            normalize_observations=self.normalize_observations,
        )
        sizes = {"neighbours": self.neighbours, "queries": self.queries, "seed": self.seed}
        if self.all_choices:
            found = choices_table(data, **sizes)
        else:
            one = intrinsic_action_variance(
                data,
                **sizes,
                include_self=self.include_self,
                same_trajectory=self.same_trajectory,
                unbiased=self.unbiased,
                scale=self.scale,
            )
            found = [one]
        if self.json:
            records = [{**estimate.to_json(), "delta": _deltas(estimate)} for estimate in found]
            rest = {"choices": records} if self.all_choices else records[0]
            print_json({"dataset": data.name, **rest})
        else:
            _print_table(data.name, found)
        return 0


def _deltas(estimate: IAV) -> dict[str, float]:
    """What the published rule makes of it."""
    return {"manipulation": 0.1 * estimate.value, "navigation": estimate.value}


def _print_table(name: str, found: list[IAV]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"{name}: {found[0].queries:,} states, {found[0].choices.neighbours} neighbours"
    table = Table(title=title, title_justify="left")
    for heading in ("itself", "trajectory", "divided by", "distances"):
        table.add_column(heading)
    for heading in ("IAV", "95%", "0.1 x"):
        table.add_column(heading, justify="right", no_wrap=True)
    for estimate in found:
        choices = estimate.choices
        table.add_row(
            "yes" if choices.include_self else "no",
            "any" if choices.same_trajectory else "others",
            "k - 1" if choices.unbiased else "k",
            choices.scale,
            f"{estimate.value:.3g}",
            f"+- {estimate.interval[1] - estimate.value:.2g}",
            f"{_deltas(estimate)['manipulation']:.2g}",
        )
    Console().print(table)
