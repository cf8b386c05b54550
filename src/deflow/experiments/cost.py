"""What a gradient step of a run costs: counted from its program, not measured."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deflow.core.agent import ONLINE, Phase
from deflow.core.flops import product_flops
from deflow.core.frames import STACK
from deflow.core.types import Clock, Spec
from deflow.data.dataset import Dataset
from deflow.training.config import TrainConfig
from deflow.training.device_data import DeviceData, device_columns

ROWS = 4
"""Rows of the stand-in for the data: a program's cost depends on nothing but their widths."""


def phase_costs(config: TrainConfig, spec: Spec) -> list[dict[str, Any]]:
    """Steps of each phase, the gradient steps among or in them (`updates`), and the GFLOP (10^9
    operations) that one of these takes for one member.

    Matrix products alone, as `core.flops` counts them: forward, backward and, for flows, every step
    of the integration. Columns that a phase leaves in the data (cached proposals) are not gradient
    steps and are not in it.
    """
    dataset = _few_rows(spec)
    data, key = DeviceData.from_dataset(dataset), jax.random.key(0)
    agent = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), config.agent)
    state = jax.eval_shape(lambda: agent.init(key, spec))
    left: dict[str, jax.ShapeDtypeStruct] = {}
    costs = []
    for index, phase in enumerate(config.phases(spec)):
        fields = {
            n: left[n] if n in left else device_columns(dataset, config.agent, [n])[n][0]
            for n in phase.fields
        }

        def step(
            state: Any, fields: Any, count: Any, phase: Phase = phase, index: int = index
        ) -> Any:
            batch = data.sample(key, phase.batch_size, fields)
            return phase.update(agent, state, batch, phase.draw(agent, key), Clock(count, index))

        flops = product_flops(step, state, fields, jnp.asarray(0))
        costs.append(
            {
                "phase": phase.name,
                "steps": phase.steps,
                "updates": _updates(config, phase, spec),
                "gflop_per_step": flops / 1e9,
            }
        )
        for field in phase.leaves:
            left[field.name] = jax.eval_shape(
                lambda state, field=field: field.compute(
                    agent, state, data.observed(jnp.arange(ROWS)), field.draw(agent, key, ROWS)
                ),
                state,
            )
    return costs


def mean_gflop(costs: list[dict[str, Any]]) -> float:
    """GFLOP of a gradient step, averaged over those of all phases."""
    updates = [cost["updates"] for cost in costs]
    return float(np.average([cost["gflop_per_step"] for cost in costs], weights=updates))


def _updates(config: TrainConfig, phase: Phase, spec: Spec) -> int:
    """A phase's gradient steps; online its steps are those of the environment."""
    online = config.online(spec)
    if online is None or phase.name != ONLINE:
        return phase.steps
    return (phase.steps - online.random_steps) * config.updates_per_step


def _few_rows(spec: Spec) -> Dataset:
    """A dataset of the task's widths."""
    return Dataset.from_arrays(
        observations=_observations(spec),
        actions=np.zeros((ROWS, spec.action_dim), np.float32),
        rewards=np.zeros(ROWS, np.float32),
        terminals=np.arange(ROWS) == ROWS - 1,
    )


def _observations(spec: Spec) -> np.ndarray:
    """Vectors, or single frames where an observation is a stack of them."""
    if spec.frame is None:
        return np.zeros((ROWS, spec.observation_dim), np.float32)
    height, width, channels = spec.frame
    return np.zeros((ROWS, height, width, channels // STACK), np.uint8)
