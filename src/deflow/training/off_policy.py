"""Judging a run without an environment: fitted Q evaluation, and statistics on held-out data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from deflow.core.checks import require
from deflow.core.errors import DeFlowError
from deflow.core.progress import progress_bar
from deflow.data.dataset import Dataset
from deflow.data.own import Own
from deflow.training.bootstrap import Estimate, bootstrap, mean_of, rank_correlation_of, slope_of
from deflow.training.evaluate import PolicyKind
from deflow.training.fitted import examine, fit_values
from deflow.training.held_out import HeldOut, discounted_returns, hold_out
from deflow.training.policy import choosing, load_family
from deflow.training.run_folder import RunFolder
from deflow.training.source import Again
from deflow.value.fqe import FQE

DISCOUNT = 0.99
"""Of agents that have none of their own."""

KEYS = 2**32 - 2
"""What sets these keys apart from those of a run with this seed, whose critics the fit judges."""


@dataclass(frozen=True)
class Calibration:
    """The agent's own Q at the data's actions against the discounted returns that followed, both of
    the rewards that its critics see (some scale them: `reward_scale`).

    Q is of the learnt policy and the returns are of those who acted, so that a better policy has a
    Q above them; a slope far from 1 or a low rank correlation says that Q orders what was seen
    badly.

    Attributes:
        slope: of the least-squares line of returns on Q.
        rank_correlation: Spearman's.
        mean_error: mean of Q - return.
        rows, episodes: over which; see `discounted_returns` for those that are left out.
    """

    slope: Estimate
    rank_correlation: Estimate
    mean_error: Estimate
    rows: int
    episodes: int


@dataclass(frozen=True)
class OffPolicyMember:
    """What the data say of one member. Intervals are bootstraps over held-out episodes.

    Values and returns are sums of the rewards that were learnt, so scaled and shifted ones where
    the run was told to.

    Attributes:
        member: its label.
        discount: of its returns.
        value: the policy's value where held-out episodes begin, by fitted Q evaluation.
        disagreement: of the fitted critics there, as a standard deviation.
        returns: what was earned in the data from there, discounted; a cut episode's to its cut.
        action_distance: (policy's action - data's action)^2 at held-out states, per action
            dimension: the unit of `delta` and of the intrinsic action variance.
        flow_loss: the behaviour flow's loss on held-out transitions.
        calibration: of the agent's own Q.
        reasons: why a part is None.
    """

    member: str
    discount: float
    value: Estimate
    disagreement: float
    returns: Estimate
    action_distance: Estimate
    flow_loss: Estimate | None
    calibration: Calibration | None
    reasons: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return {name: _plain(part) for name, part in vars(self).items()}


@dataclass(frozen=True)
class OffPolicy:
    """What an evaluation without an environment found, member by member."""

    folder: RunFolder
    policy: PolicyKind
    position: dict[str, Any]
    held_out: HeldOut
    settings: FQE
    steps: int
    seed: int
    members: list[OffPolicyMember]

    @property
    def unsettled(self) -> float:
        """What is left of the fit's way to its values, by the slowest member's discount."""
        slowest = max(member.discount for member in self.members)
        return self.settings.unsettled(self.steps, slowest)

    def to_json(self) -> dict[str, Any]:
        return {
            "run_dir": str(self.folder.path),
            "policy": self.policy,
            "position": self.position,
            "held_out": self.held_out.to_json(),
            "fqe": {
                "steps": self.steps,
                "seed": self.seed,
                "unsettled": self.unsettled,
                **asdict(self.settings),
            },
            "members": [member.to_json() for member in self.members],
        }


def off_policy(
    folder: RunFolder,
    *,
    dataset: Again = None,
    steps: int = 20_000,
    seed: int = 0,
    share: float = 0.2,
    rows: int = 10_000,
    samples: int = 8,
    policy: PolicyKind = "policy",
    best_of: int | None = None,
    settings: FQE | None = None,
    unseen: Own | None = None,
    data_dir: Path | None = None,
) -> OffPolicy:
    """Judge every member of a run by data alone; nothing in the folder changes.

    Members share batches and draws, so that their differences are not those of the sampling.

    Args:
        folder: the run; its newest checkpoint is judged.
        dataset: your own data, where the run was trained on them.
        steps: gradient steps of the fitted Q evaluation.
        seed: of its networks, its batches, all noise, and of what is held out.
        share: of the episodes that the fit leaves out, of your own data or of a D4RL set;
            OGBench's sets have a validation file instead.
        rows: held-out transitions for the statistics (all where there are fewer).
        samples: actions of the policy at each start.
        policy: the trained policy, or its base flow alone.
        best_of: take the critic's favourite of so many actions (default: as configured;
            of the base flow, 1).
        settings: of the fit.
        unseen: your own data that the run was not trained on, read as its own were
            (`deflow.data.own.load_again`), to be looked at instead of a share of those.
        data_dir: where datasets are, if not where the run found them.

    Raises:
        DeFlowError: other data than the run's, too few episodes, pictures, an agent that lacks
            what is asked for, or a setting out of range.
    """
    settings = settings or FQE()
    settings.validate()
    for name, number in {"steps": steps, "rows": rows, "samples": samples}.items():
        require(name, number, at_least=1)
    require("seed", seed, at_least=0, below=2**32)
    config, family, states, spec, meta = load_family(folder)
    agents = choosing(family.agents, policy, best_of, folder)
    if spec.frame:
        raise DeFlowError(
            f"{folder.path} learnt from frames, and evaluation without an environment takes "
            "states: evaluate it in its environment."
        )
    if data_dir:
        config = replace(config, data_dir=data_dir)
    held_out = hold_out(folder, config, dataset, share, seed, unseen)
    data = held_out.held
    labels = [member.label for member in family.members]

    def each(name: str, default: float) -> NDArray[np.float64]:
        return np.broadcast_to(np.asarray(getattr(agents, name, default)), len(labels))

    discounts = jnp.asarray(each("discount", DISCOUNT))
    scales, biases = each("reward_scale", 1.0), each("reward_bias", 0.0)
    episode = data.episodes
    starts = np.repeat(np.unique(episode, return_index=True)[1], samples)
    chosen = np.random.default_rng(seed).choice(
        data.transitions, min(rows, data.transitions), replace=False
    )
    own = jax.random.fold_in(jax.random.key(seed), KEYS)
    fit_key, start_key, row_key = jax.random.split(own, 3)
    with progress_bar(transient=True) as bar:
        shown = bar.add_task("fitted Q", total=steps, note="")
        fitted = fit_values(
            agents,
            states,
            discounts,
            held_out.fit,
            spec,
            policy=policy,
            settings=settings,
            steps=steps,
            key=fit_key,
            on_chunk=lambda done, loss: bar.update(shown, completed=done, note=f"loss {loss:.3g}"),
        )
        looked = bar.add_task("held-out data", total=len(starts) + len(chosen), note="")
        at = partial(
            examine,
            agents,
            states,
            fitted,
            data,
            spec=spec,
            policy=policy,
            on_block=lambda rows: bar.advance(looked, rows),
        )
        at_starts, at_rows = at(starts, key=start_key), at(chosen, key=row_key)
    members = [
        _member(
            label,
            float(discounts[i]),
            data,
            (float(scales[i]), float(biases[i])),
            (starts, {name: values[i] for name, values in at_starts.items()}),
            (chosen, {name: values[i] for name, values in at_rows.items()}),
            agents.name,
            seed,
        )
        for i, label in enumerate(labels)
    ]
    return OffPolicy(folder, policy, meta["position"], held_out, settings, steps, seed, members)


Seen = tuple[NDArray[np.intp], dict[str, NDArray[np.float64]]]
"""Transitions, and what one member made of them."""


def _member(
    label: str,
    discount: float,
    data: Dataset,
    units: tuple[float, float],
    starts: Seen,
    rows: Seen,
    agent: str,
    seed: int,
) -> OffPolicyMember:
    episode = data.episodes
    returns, known = discounted_returns(data, discount)
    at_starts, at_rows = episode[starts[0]], episode[rows[0]]
    over = partial(bootstrap, seed=seed)
    fitted, found = starts[1]["fitted"], rows[1]
    reasons: dict[str, str] = {}
    flow_loss = over(mean_of(found["flow_loss"]), at_rows) if "flow_loss" in found else None
    if flow_loss is None:
        reasons["flow_loss"] = f"The behaviour of {agent} is no flow."
    calibration = None
    inside = known[rows[0]]
    if "q" not in found:
        reasons["calibration"] = f"{agent} has no Q."
    elif not inside.any():
        reasons["calibration"] = (
            "No return is known: every held-out episode was cut, none of them late enough for the "
            f"discount of {discount:g}."
        )
    else:
        scale, bias = units  # In which the agent's Q is.
        own_rewards = replace(data, rewards=scale * data.rewards + bias)
        own_returns, _ = discounted_returns(own_rewards, discount)
        q, earned, own = found["q"][inside], own_returns[rows[0]][inside], at_rows[inside]
        calibration = Calibration(
            slope=over(slope_of(q, earned), own),
            rank_correlation=over(rank_correlation_of(q, earned), own),
            mean_error=over(mean_of(q - earned), own),
            rows=len(own),
            episodes=len(np.unique(own)),
        )
    return OffPolicyMember(
        member=label,
        discount=discount,
        value=over(mean_of(fitted.mean(-1)), at_starts),
        disagreement=float(fitted.std(-1).mean()),
        returns=over(mean_of(returns[starts[0]]), at_starts),
        action_distance=over(mean_of(found["distance"]), at_rows),
        flow_loss=flow_loss,
        calibration=calibration,
        reasons=reasons,
    )


def _plain(part: Any) -> Any:
    """An estimate, or a calibration of several, as plain data."""
    if isinstance(part, Calibration):
        return {name: _plain(each) for name, each in vars(part).items()}
    return part.to_json() if isinstance(part, Estimate) else part
