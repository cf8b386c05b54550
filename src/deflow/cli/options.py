"""The options that every command that trains has."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deflow.core.errors import DeFlowError

if TYPE_CHECKING:
    from deflow.data.own import Own
    from deflow.training.config import TrainConfig
    from deflow.training.run_folder import RunFolder

OF_OWN_DATA = (
    "columns",
    "action_bounds",
    "normalize_observations",
    "scale_rewards",
    "shift_rewards",
)
OF_FLOW_FIRST = ("prior_steps", "proposals")
OF_LEARNING_ONLINE = ("updates_per_step", "overwrite")


@dataclass(kw_only=True)
class TrainingOptions:
    """How a family is trained and judged; what is trained, and where, each command says itself."""

    seeds: tuple[int, ...] = (0,)
    """One run for each, all of an agent's in one program."""
    steps: int | None = None
    """Gradient steps (of each phase, where a schedule has several); as published, unless given."""
    online_steps: int = 0
    """Steps in the environment, after those on the data: each is followed by a gradient step on
    both."""
    updates_per_step: int = 1
    """Gradient steps for each step in the environment."""
    overwrite: bool = False
    """Online, keep at most max(2,000,000, data + 1) transitions, as the official code does: what is
    met takes the place of the oldest. Otherwise nothing is overwritten."""
    env_patience: float = 60.0
    """Seconds after which an environment that does not answer is begun anew."""
    preset: Literal["paper", "none"] = "paper"
    """Begin from the published settings of the task's environment, or from plain defaults."""
    data: Path | None = None
    """Your own data: a file (.npz, .hdf5, .parquet), a folder (Parquet, LeRobot, Minari), or
    minari: and a set's id."""
    columns: tuple[str, ...] = ()
    """Which column of --data is what, each as role=name (see `deflow data inspect --help`)."""
    action_bounds: tuple[float, ...] = ()
    """The bounds of the actions in --data: low and high for all, or all lows, then all highs
    (default: those that the data declare, else [-1, 1] where they lie there)."""
    normalize_observations: bool = False
    """Bring the observations of --data to mean 0 and deviation 1; the policy does so by itself."""
    scale_rewards: str = "1"
    """Multiply the rewards of --data by a number, by 1 / deviation (std), or so that returns lie
    1000 apart (range)."""
    shift_rewards: float = 0.0
    """Add this to the rewards of --data before they are scaled."""
    env: str | None = None
    """Your own environment, as module:make (default: the task's, or the one that --data name)."""
    eval_every: int = 100_000
    """Steps between evaluations; the last step is always evaluated."""
    eval_episodes: int = 50
    """Episodes of one evaluation; 0 for none."""
    eval_seed: int = 0
    """Seed of the evaluation's environments and noise."""
    log_every: int = 1000
    """Steps between lines of metrics."""
    checkpoint_every: int = 0
    """Steps between checkpoints, from which a stopped run goes on, beside those of phases' ends (0:
    a tenth of the phase, 100,000 at most)."""
    chunk: int = 100
    """Steps in one compiled scan; the screen moves once a chunk."""
    data_dir: Path | None = None
    """Where datasets are (default: $DEFLOW_DATA_DIR, else the user's cache)."""
    workers: int = 0
    """Processes that step environments (0: one for each core)."""
    json: bool = False
    """Print one JSON document instead of text."""

    def own(self) -> Own | None:
        """The user's own data, where --data names some; raises `DeFlowError` as `load_own`."""
        if self.data is None:
            return None
        from deflow.data.own import load_own

        return load_own(
            self.data,
            self.columns,
            bounds=box_of(self.action_bounds),
            normalize_observations=self.normalize_observations,
            scale_rewards=_scale(self.scale_rewards),
            shift_rewards=self.shift_rewards,
        )

    def check_given(self, configs: Collection[TrainConfig], began: Any = None) -> None:
        """Raise `DeFlowError` where a configuration is wrong, or an option given changes nothing in
        any of them; `began` as of `refuse_given`."""
        if self.data is None:
            refuse_given(self, OF_OWN_DATA, "data of your own: give them with --data", began)
        if not self.online_steps:
            where = "learning online: give --online-steps"
            refuse_given(self, OF_LEARNING_ONLINE, where, began)
        for config in configs:
            config.validate()
        if not any(map(learns_before, configs)):
            what = "learning before the run goes online, which is not done here: leave it"
            refuse_given(self, ("steps",), what, began)


def learns_before(config: TrainConfig) -> bool:
    """Whether the agent learns from data before it goes online, if it does that."""
    from deflow.training.config import ANYTHING

    return bool(config.agent.phases(ANYTHING, config.schedule))


def refuse_given(command: Any, names: Iterable[str], what: str, began: Any = None) -> None:
    """Raise `DeFlowError` at the first of these options that was `given`: it is for `what`, and
    would change nothing here."""
    for name in given(command, names, began):
        raise DeFlowError(f"--{name.replace('_', '-')} is for {what}.")


def refuse_of_flow_first(settings: Iterable[str], config: TrainConfig) -> None:
    """Raise `DeFlowError` at a setting given that another schedule than flow-first never asks."""
    if "flow-first" not in config.agent.schedules or config.schedule == "flow-first":
        return
    for name in settings:
        if name in OF_FLOW_FIRST:
            raise DeFlowError(
                f"The setting {name} is for the schedule flow-first: give --schedule too, or leave "
                "it."
            )


def given(command: Any, names: Iterable[str], began: Any = None) -> list[str]:
    """Those of some options that differ from the command's defaults, or from what it `began` as."""
    return [n for n in names if getattr(command, n) != getattr(began or type(command), n)]


def own_again(folder: RunFolder, data: Path | None) -> Own | None:
    """A run's own data, read from `data` as they were when it was trained."""
    if data is None:
        return None
    from deflow.data.own import load_again

    return load_again(data, folder.read_json("conversion.json"))


def box_of(numbers: tuple[float, ...]) -> Any:
    """Bounds of actions; None where none are given."""
    if len(numbers) % 2:
        raise DeFlowError(
            f"--action-bounds takes as many lows as highs, but there are {len(numbers)} numbers."
        )
    from deflow.data.transforms import Box

    half = len(numbers) // 2
    return Box(numbers[:half], numbers[half:]) if numbers else None


def _scale(word: str) -> Any:
    if word in ("std", "range"):
        return word
    try:
        return float(word)
    except ValueError as error:
        raise DeFlowError(
            f"--scale-rewards takes a number, std or range, but it is {word!r}."
        ) from error
