"""Problems whose answers are known, and a training of three seeds on them in one program.

A bandit: one state, two modes of action, a reward for each action. A chain: three states in a row,
each costing 1, so that the values are known whatever is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tests.compiled import once

from deflow.core.agent import Agent
from deflow.core.types import Spec
from deflow.data.dataset import Dataset
from deflow.training.device_data import DeviceData, device_columns
from deflow.training.family import Family, compute_rows, members_of, run_chunk

SEEDS = (0, 1, 2)
MODE, WIDTH = 0.5, 0.05
"""The bandit's modes stand at +-MODE in the first dimension, with this deviation in both."""

SIZES: dict[str, Any] = {"hidden": (32, 32), "batch_size": 64, "learning_rate": 3e-3, "tau": 0.05}
"""Networks that learn such a problem in a thousand steps."""


def bandit(reward: Any, *, everywhere: bool = False, rows: int = 4096) -> Dataset:
    """Actions [rows, 2] at two modes, or everywhere in the box, where a critic that has seen no
    gap may be trusted with its slope; each an episode of one step."""
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], rows)
    centres = np.stack([MODE * signs, np.zeros(rows)], axis=1)
    actions = (centres + WIDTH * rng.standard_normal((rows, 2))).astype(np.float32)
    if everywhere:
        actions = rng.uniform(-0.95, 0.95, (rows, 2)).astype(np.float32)
    return Dataset.from_arrays(
        observations=np.zeros((rows, 1), np.float32),
        actions=actions,
        rewards=np.asarray(reward(actions), np.float32),
        terminals=np.ones(rows, np.bool_),
        name="bandit",
    )


CHAIN_DISCOUNT = 0.9
CHAIN_VALUES = (-2.71, -1.9, -1.0)
"""Of the three states of the chain, at that discount."""


def chain(episodes: int = 300) -> Dataset:
    """States 0, 1, 2 (one-hot), a reward of -1 at each, then the end; any action goes on."""
    rng = np.random.default_rng(0)
    rows = 3 * episodes
    return Dataset.from_arrays(
        observations=np.tile(np.eye(3, dtype=np.float32), (episodes, 1)),
        actions=rng.uniform(-0.9, 0.9, (rows, 2)).astype(np.float32),
        rewards=-np.ones(rows, np.float32),
        terminals=np.tile([False, False, True], episodes),
        name="chain",
    )


@dataclass
class Trained:
    """A family of three seeds after training."""

    agent: Agent
    family: Family
    states: Any
    spec: Spec

    def each(self, function: Any) -> np.ndarray:
        """`function(agent, state)` of every seed, stacked."""
        return np.asarray(once(jax.vmap(function))(self.family.agents, self.states))

    def actions(self, what: str = "act", count: int = 512, **fields: Any) -> np.ndarray:
        """[seeds, count, act] in the state of zeros: `act`, or `propose`."""
        observations = jnp.zeros((count, self.spec.observation_dim))
        keys = jax.random.split(jax.random.key(9), count)

        def choose(agent: Agent, state: Any) -> Any:
            noise = jax.vmap(lambda key: agent.draw_act(key, self.spec))(keys)
            return getattr(agent, what)(state, observations, noise)

        return self.each(choose)


def train(
    agent: Agent, data: Dataset, steps: int, schedule: str = "", **over: tuple[float, ...]
) -> Trained:
    """Three seeds in one program, with each of the swept values in turn."""
    agent.validate()
    spec = Spec(
        data.observations.shape[1],
        data.actions.shape[1],
        (float(data.rewards.min()), float(data.rewards.max())),
        steps,
    )
    family = Family.build(agent, members_of(SEEDS, over))
    states, device = family.init(spec), DeviceData.from_dataset(data)
    fields: dict[str, jax.Array] = {}
    for index, phase in enumerate(agent.phases(spec, schedule or agent.schedules[0])):
        for name in set(phase.fields) - set(fields):
            fields |= device_columns(data, agent, [name])
        own = {name: fields[name] for name in phase.fields}
        start = jnp.asarray(0)
        states, metrics = run_chunk(family, states, device, own, start, phase, index, phase.steps)
        assert all(np.isfinite(values).all() for values in metrics.values())
        for field in phase.leaves:
            fields[field.name] = compute_rows(family, states, device, field)
    return Trained(agent, family, states, spec)
