"""Evaluation in the real environment: every episode of every member, in lockstep."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from deflow.core.agent import Agent, Proposing, State
from deflow.core.closing import Closing
from deflow.core.errors import DeFlowError
from deflow.core.progress import console
from deflow.core.types import Spec
from deflow.data.transforms import UNCHANGED, Transforms
from deflow.envs.make import EnvSpec
from deflow.envs.pool import EnvPool
from deflow.envs.rollout import EpisodeResult, RolloutTimes, rollout
from deflow.training.family import in_turn
from deflow.training.source import normalizer

PolicyKind = Literal["policy", "prior"]
"""The trained policy, or the base flow that it refines."""

NOISE = 2**32 - 1
"""What sets the keys of an evaluation apart from those of a run with its seed."""

MAX_SLOTS = 50
"""Environments at the same time."""

MAX_DRAWN = 8
"""The same where each draws what it shows, with a model and a scene of its own in memory."""


@dataclass(frozen=True)
class Evaluation:
    """How one member did over its episodes."""

    episodes: list[EpisodeResult]
    points: Callable[[float], float] | None = None
    """From a return to the benchmark's points, where it has such."""

    @property
    def success(self) -> float | None:
        """Share of episodes whose last step reports success, where the environment reports any."""
        values = [e.success for e in self.episodes if e.success is not None]
        return float(np.mean(values)) if values else None

    @property
    def return_(self) -> float:
        return float(np.mean([e.return_ for e in self.episodes]))

    @property
    def length(self) -> float:
        return float(np.mean([e.length for e in self.episodes]))

    def to_json(self) -> dict[str, Any]:
        return {
            "success": self.success,
            "return": self.return_,
            "points": self.points(self.return_) if self.points else None,
            "length": self.length,
            "episodes": [
                {name.rstrip("_"): value for name, value in asdict(e).items()}
                for e in self.episodes
            ],
        }


def actions_of(
    agent: Agent, state: State, observations: Array, noise: Any, policy: PolicyKind
) -> Array:
    """Actions [n, act] of the policy, or of its base flow; `choosing` says who has one."""
    if policy == "prior":
        assert isinstance(agent, Proposing)
        return agent.propose(state, observations, noise)
    return agent.act(state, observations, noise, "evaluate")


@eqx.filter_jit
def batched_act(
    agents: Agent,
    states: State,
    observations: ArrayLike,
    seed: ArrayLike,
    episodes: ArrayLike,
    steps: ArrayLike,
    spec: Spec,
    policy: PolicyKind,
) -> Any:
    """Actions [members, slots, act] of all members in all their episodes, in one call.

    The noise of an action depends on (seed, episode, step) alone.
    """
    own = jax.random.fold_in(jax.random.key(seed), NOISE)

    def draw(agent: Agent, episode: Array, step: Array) -> Any:
        key = jax.random.fold_in(jax.random.fold_in(own, episode), step)
        return agent.draw_act(key, spec)

    def act(agent: Agent, state: State, observations: Array, episodes: Array, steps: Array) -> Any:
        noise = jax.vmap(lambda e, t: draw(agent, e, t))(episodes, steps)
        return actions_of(agent, state, observations, noise, policy)

    where = (jnp.asarray(observations), jnp.asarray(episodes), jnp.asarray(steps))
    if spec.frame:
        return in_turn(act, agents, states, *where)
    return jax.vmap(act)(agents, states, *where)


class Evaluator(Closing):
    """Keeps the environments of a run between its evaluations. A context manager.

    Where a worker raises, dies or, with a `patience`, does not answer for so many seconds for each
    of its environments, an evaluation is begun again in new processes, and given up after `tries`.
    """

    def __init__(
        self,
        env: EnvSpec | None,
        spec: Spec,
        members: int,
        episodes: int,
        workers: int,
        transforms: Transforms = UNCHANGED,
        patience: float | None = None,
        tries: int = 1,
    ):
        self.patience, self.tries = patience, tries
        self.spec, self.members, self.episodes = spec, members, episodes
        self.slots = min(episodes, max(1, (MAX_DRAWN if spec.frame else MAX_SLOTS) // members))
        self.env, self.workers = env, workers or (os.cpu_count() or 1)
        self.transforms, self.points = transforms, normalizer(env)
        self.pool: EnvPool | None = None

    def __call__(
        self,
        agents: Agent,
        states: State,
        seed: int,
        policy: PolicyKind = "policy",
        on_tick: Callable[[int, int], None] | None = None,
    ) -> tuple[list[Evaluation], RolloutTimes]:
        """Every member plays episodes 0, 1, ...; the same for any number of workers.

        Raises `DeFlowError` where there is no environment, or it fails at every try.
        """
        if self.env is None:
            raise DeFlowError(
                "This run names no environment to evaluate in: give --env module:make."
            )
        for _ in range(self.tries - 1):
            try:
                return self._play(self.env, agents, states, seed, policy, on_tick)
            except DeFlowError as error:
                self.close()
                console.print(f"The evaluation begins again: {error}", style="yellow")
        return self._play(self.env, agents, states, seed, policy, on_tick)

    def _play(
        self,
        env: EnvSpec,
        agents: Agent,
        states: State,
        seed: int,
        policy: PolicyKind,
        on_tick: Callable[[int, int], None] | None,
    ) -> tuple[list[Evaluation], RolloutTimes]:
        if self.pool is None:
            slots = self.slots * self.members
            workers = min(self.workers, slots)
            patience = self.patience and self.patience * math.ceil(slots / workers)
            self.pool = EnvPool(env, slots, workers, patience)

        def act(observations: Any, episodes: Any, steps: Any) -> Any:
            if self.transforms.normal:
                observations = self.transforms.normal(observations)
            where = (observations, np.uint32(seed), episodes, steps)
            actions = np.asarray(batched_act(agents, states, *where, self.spec, policy))
            # A member may have diverged in the very last step, before its loss could tell; it does
            # nothing here, and the guard names it at its next step.
            return np.nan_to_num(actions, nan=0.0)

        results, times = rollout(
            self.pool, act, range(self.episodes), seed, members=self.members, on_tick=on_tick
        )
        return [Evaluation(episodes, self.points) for episodes in results], times

    def close(self) -> None:
        if self.pool is not None:
            self.pool.close()
            self.pool = None
