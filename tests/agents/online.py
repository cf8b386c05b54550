"""Agents that learn online, made to learn from a fixed set by their online update."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from tests.agents.small import Trained, train
from tests.compiled import once

from deflow.core.agent import Agent, Phase
from deflow.core.types import Batch, Clock, Spec
from deflow.data.dataset import Dataset


def observed(spec: Spec, size: int) -> Batch:
    """A batch of random transitions, a quarter of which end their episode; with returns."""
    keys = jax.random.split(jax.random.key(1), 5)
    return Batch(
        observations=jax.random.normal(keys[0], (size, spec.observation_dim)),
        actions=jax.random.uniform(keys[1], (size, spec.action_dim), minval=-1),
        rewards=-jax.random.uniform(keys[2], (size,)),
        masks=(jnp.arange(size) % 4 > 0).astype(jnp.float32),
        next_observations=jax.random.normal(keys[3], (size, spec.observation_dim)),
        fields={"returns": -jax.random.uniform(keys[4], (size,))},
    )


# As in training, settings are data: agents that differ in numbers alone share a program.


@partial(once, static_argnames="spec")
def begun(agent: Any, spec: Spec, seed: int = 0) -> Any:
    """An agent's state before training."""
    return agent.init(jax.random.key(seed), spec)


@once
def gradients(agent: Any, state: Any, batch: Batch, noise: Any) -> Any:
    """Of one update, with its metrics."""
    return agent.gradients(state, batch, noise, Clock(jnp.asarray(0)))


@partial(once, static_argnames="spec")
def updated(agent: Any, spec: Spec, state: Any, batch: Batch, noise: Any, step: Any = 0) -> Any:
    """One update of the online phase, with its metrics."""
    clock = Clock(jnp.asarray(step))
    return agent.online(spec, 10).phase.update(agent, state, batch, noise, clock)


def learn(agent: Agent, data: Dataset, steps: int, **over: tuple[float, ...]) -> Trained:
    """Three seeds that take the online phase's updates on batches of the set."""

    class Offline(type(agent)):  # type: ignore[misc]
        """The same, with its online phase as an offline one."""

        def phases(self, spec: Spec, schedule: str) -> tuple[Phase, ...]:
            found = self.online(spec, steps)
            assert found is not None
            return (replace(found.phase, name="offline"),)

    settings: dict[str, Any] = vars(agent)
    return train(Offline(**settings), data, steps, **over)
