"""What a run is judged on without an environment: held-out episodes, and what they earned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deflow.core.checks import require
from deflow.core.errors import DeFlowError
from deflow.data.columns import discounted_sums
from deflow.data.dataset import Dataset
from deflow.data.own import Own
from deflow.training.config import TrainConfig
from deflow.training.run_folder import RunFolder
from deflow.training.source import Again
from deflow.training.task import Job
from deflow.training.train import prepare_again

UNSEEN = 0.05
"""A cut episode's return is known where what follows the cut weighs no more than this."""


@dataclass(frozen=True)
class HeldOut:
    """The data that an evaluation fits, and those that it looks at afterwards.

    Attributes:
        fit: what fitted Q evaluation learns from.
        held: what all statistics are taken over.
        source: in words, what is held out, and of what.
    """

    fit: Dataset
    held: Dataset
    source: str

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "episodes": len(np.unique(self.held.episodes)),
            "transitions": self.held.transitions,
            "fitted_transitions": self.fit.transitions,
        }


def hold_out(
    folder: RunFolder,
    config: TrainConfig,
    dataset: Again,
    share: float,
    seed: int,
    unseen: Own | None = None,
) -> HeldOut:
    """What a run was trained on, to be fitted, and other data, to be looked at afterwards.

    OGBench's sets bring a validation file, and a user may bring `unseen` data, read in the units of
    the run's own: nothing was trained on them. Where there is neither, a share of the episodes is
    held out of the evaluation's fit; the policy itself has seen them.

    Raises:
        DeFlowError: other data than the run's, unseen data of other widths or units, or too few
            episodes to hold some out.
    """
    require("share (--held-out)", share, above=0, below=1)
    blind = replace(config, env=None, online_steps=0)  # Nobody acts here.
    if unseen:
        return _beside(prepare_again(folder, blind, dataset), unseen)
    own = folder.dataset()["own"]
    task = None if own or dataset is not None else _ogbench_task(config.task)
    if task is None:
        return _split(prepare_again(folder, blind, dataset).logged(), share, seed)
    from deflow.data.ogbench import load_task

    train, validation = load_task(task, config.data_dir)
    prepare_again(folder, blind, train)
    return HeldOut(train, validation, "the validation file, on which nothing was trained")


def _beside(job: Job, unseen: Own) -> HeldOut:
    """The run's data to be fitted, all of the unseen ones to be looked at."""
    fit, held = job.logged(), unseen.dataset
    for what in ("observations", "actions"):
        mine, theirs = (getattr(data, what).shape[1] for data in (fit, held))
        if mine != theirs:
            raise DeFlowError(
                f"{held.name} holds {what} of width {theirs}, and {fit.name}, on which the run was "
                f"trained, of width {mine}: give data of the same kind."
            )
    if unseen.transforms != job.transforms:
        raise DeFlowError(f"{held.name} was scaled or normalised otherwise than {fit.name}.")
    if held.fingerprint() == fit.fingerprint():
        raise DeFlowError(f"{held.name} is what the run was trained on: give data it has not seen.")
    return HeldOut(fit, held, f"{held.name}, on which nothing was trained")


def _ogbench_task(name: str) -> Any:
    """The OGBench task of that name, or None."""
    from deflow.data.names import parse_task

    try:
        return parse_task(name)
    except DeFlowError:
        return None


def _split(data: Dataset, share: float, seed: int) -> HeldOut:
    episode = data.episodes
    names = np.unique(episode)
    count = max(2, round(share * len(names)))
    if len(names) - count < 1:
        raise DeFlowError(
            f"{data.name} has {len(names)} episodes with transitions, too few to hold {count} of "
            "them out: give more, or hold out a smaller share."
        )
    chosen = np.random.default_rng(seed).choice(names, count, replace=False)
    out = np.isin(episode, chosen)
    fit, held = (
        replace(data, rows=data.rows[part], next_rows=data.next_rows[part]) for part in (~out, out)
    )
    return HeldOut(
        fit,
        held,
        f"{count} of {len(names)} episodes, held out of the evaluation's fit; the policy itself "
        "was trained on them too",
    )


def discounted_returns(
    data: Dataset, discount: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """What followed each transition, r + gamma mask (what followed the next), and whether that is
    the whole of it: [M] each.

    Nothing is added after the last transition of an episode. The return is the whole where the
    episode truly ended there, or where what a cut has hidden weighs at most 5%. Whether a cut
    episode's row counts depends on its place alone and not on what was earned after it, which would
    favour rows with success ahead. Where some episodes end and others are cut early, the known
    returns are still those of episodes that ended.
    """
    last = data.last
    rewards = data.rewards[data.rows].astype(np.float64)
    masks = data.masks[data.rows]
    # Of each row, its episode's last transition.
    ending = np.flatnonzero(last)[np.searchsorted(np.flatnonzero(last), np.arange(len(rewards)))]
    left = ending - np.arange(len(rewards)) + 1
    known = (masks[ending] == 0) | (discount**left <= UNSEEN)
    return discounted_sums(rewards, masks, last, discount), known
