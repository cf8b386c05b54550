"""A trained policy as a function from observations to actions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from deflow.core.agent import Agent, Proposing, State
from deflow.core.checks import require
from deflow.core.device import require_device
from deflow.core.errors import DeFlowError
from deflow.core.types import Spec
from deflow.data.transforms import UNCHANGED, Transforms
from deflow.training import checkpoint
from deflow.training.config import TrainConfig
from deflow.training.evaluate import PolicyKind, batched_act
from deflow.training.family import Family, members_of
from deflow.training.run_folder import RunFolder


class Policy:
    """`policy(observation) -> action`, numpy in and out.

    One observation [obs] gives one action [act]; a batch [n, obs] gives [n, act]. Where the task is
    seen, an observation is a stack of frames [height, width, channels] in bytes, as
    `deflow.envs.stacking.Stacked` makes it. Each call draws fresh noise, from a seed: the same
    calls in the same order give the same actions. Observations and actions are in the units of the
    data: what was scaled or normalised for learning is done here, and undone.
    """

    def __init__(
        self,
        agents: Agent,
        states: State,
        spec: Spec,
        seed: int,
        kind: PolicyKind,
        transforms: Transforms = UNCHANGED,
    ):
        self.agents, self.states, self.spec, self.transforms = agents, states, spec, transforms
        self.seed, self.kind, self.calls = seed, kind, 0

    def __call__(self, observation: ArrayLike) -> NDArray[np.float32]:
        shape, seen = self.spec.observation_shape, self.spec.frame is not None
        batch = np.asarray(observation, None if seen else np.float32)
        alone = batch.ndim == len(shape)
        fits = batch.ndim in (len(shape), len(shape) + 1) and batch.shape[-len(shape) :] == shape
        if not fits or (seen and batch.dtype != np.uint8):
            wanted = f"{'x'.join(map(str, shape))} bytes" if seen else f"{shape[0]} numbers"
            raise DeFlowError(
                f"The policy takes observations of {wanted}, one or a batch of them, but was given "
                f"an array of shape {batch.shape}" + (f" and {batch.dtype}." if seen else ".")
            )
        rows = batch[None] if alone else batch
        if self.transforms.normal:
            rows = self.transforms.normal(rows)
        actions = batched_act(
            self.agents,
            self.states,
            rows[None],
            np.uint32(self.seed),
            np.arange(len(rows))[None],
            np.full((1, len(rows)), self.calls),
            self.spec,
            self.kind,
        )
        self.calls += 1
        action: NDArray[np.float32] = self.transforms.action_back(np.asarray(actions)[0])
        return action[0] if alone else action


def load_family(folder: RunFolder) -> tuple[TrainConfig, Family, State, Spec, dict[str, Any]]:
    """A run's members and their newest sound states; the meta says where they stand."""
    require_device()
    config = folder.config()
    spec = folder.spec()
    family = Family.build(config.agent, members_of(config.seeds, config.over))
    sound = checkpoint.newest_sound(folder.checkpoints)
    shapes = jax.eval_shape(family.kept, family.shapes(spec))
    return (
        config,
        family,
        checkpoint.load(sound, shapes)["states"],
        spec,
        checkpoint.read_meta(sound),
    )


def choosing(agents: Agent, kind: PolicyKind, best_of: int | None, folder: RunFolder) -> Agent:
    """The agents as they are to act: each takes the best of so many proposals. None leaves the
    policy as configured and gives the base flow one proposal, since a choice is the critic's.

    Raises `DeFlowError` where there is no such kind of policy, or the agent has none or no choice.
    """
    if kind not in get_args(PolicyKind):
        raise DeFlowError(
            f"A policy's kind is {' or '.join(map(repr, get_args(PolicyKind)))}, not {kind!r}."
        )
    if kind == "prior" and not isinstance(agents, Proposing):
        raise DeFlowError(
            f"The agent {agents.name} of {folder.path} has no base flow: take its policy."
        )
    several = hasattr(agents, "best_of")
    if best_of is None and not (several and kind == "prior"):
        return agents
    if not several:
        raise DeFlowError(
            f"The agent {agents.name} does not choose among several actions, so --best-of means "
            "nothing to it."
        )
    setting: dict[str, Any] = {"best_of": 1 if best_of is None else best_of}
    require("best_of", setting["best_of"], at_least=1)
    return replace(agents, **setting)


def transforms_of(folder: RunFolder) -> Transforms:
    """From the environment's units to the agent's, and back."""
    return Transforms.from_json(folder.read_json("conversion.json")["transforms"])


def load_policy(
    run_dir: str | Path,
    seed: int | None = None,
    *,
    member: str | None = None,
    kind: PolicyKind = "policy",
    noise_seed: int = 0,
) -> Policy:
    """The policy of one member of a run.

    Args:
        run_dir: the run's folder.
        seed: which of its seeds; may be left out where there is one.
        member: which member, by its label (`seed0-delta0.003`), where settings were swept.
        kind: `policy`, or `prior` for the base flow alone.
        noise_seed: where the policy's own draws begin.

    Raises:
        DeFlowError: no such run, seed, member or kind, more than one member, or no usable
            checkpoint.
    """
    folder = RunFolder.open(Path(run_dir))
    _, family, states, spec, _ = load_family(folder)
    every_agent = choosing(family.agents, kind, None, folder)
    require("noise_seed", noise_seed, at_least=0, below=2**32)
    fitting = [
        index
        for index, own in enumerate(family.members)
        if (seed is None or own.seed == seed) and (member is None or own.label == member)
    ]
    if len(fitting) != 1:
        labels = ", ".join(own.label for own in family.members)
        raise DeFlowError(
            f"{run_dir} has {len(fitting) or 'no'} members that fit: name one of {labels}, with "
            "seed=... or member=..."
        )
    one = slice(fitting[0], fitting[0] + 1)
    agents, state = jax.tree.map(lambda leaf: leaf[one], (every_agent, states))
    return Policy(agents, state, spec, noise_seed, kind, transforms_of(folder))
