"""What runs on the device when a run is judged by data: the fit of its values, and a look at rows.

Members share batches and draws, so that their differences are not those of the sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from deflow.core.agent import Agent, State, Valued
from deflow.core.types import Batch, Metrics, Spec
from deflow.data.dataset import Dataset
from deflow.training.device_data import DeviceData
from deflow.training.evaluate import PolicyKind, actions_of
from deflow.training.family import each_member
from deflow.value.fqe import FQE, FittedQ, fqe_init, fqe_step, return_bounds

CHUNK = 100
"""Steps of the fit in one compiled scan."""
BLOCK = 1024
"""Rows that are looked at in one call."""


def fit_values(
    agents: Agent,
    states: State,
    discounts: Array,
    dataset: Dataset,
    spec: Spec,
    *,
    policy: PolicyKind,
    settings: FQE,
    steps: int,
    key: Array,
    on_chunk: Callable[[int, float], None] = lambda done, loss: None,
) -> FittedQ:
    """Fitted Q evaluation of every member's policy, stacked; `on_chunk(done, loss)` counts steps.

    `discounts` is [members]. Critics begin alike for all members.
    """
    begin_key, step_key = jax.random.split(key)
    one = fqe_init(settings, begin_key, spec)
    fitted: FittedQ = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(discounts)), one)
    data = DeviceData.from_dataset(dataset)
    for step in range(0, steps, CHUNK):
        length = min(CHUNK, steps - step)
        members = (agents, states, fitted, discounts)
        start = jnp.asarray(step)
        fitted, metrics = _fit(members, data, step_key, start, length, settings, spec, policy)
        on_chunk(step + length, float(metrics["critic/loss"][-1].mean()))
    return fitted


@eqx.filter_jit
def _fit(
    members: tuple[Agent, State, FittedQ, Array],
    data: DeviceData,
    key: Array,
    start: Array,
    length: int,
    settings: FQE,
    spec: Spec,
    policy: PolicyKind,
) -> tuple[FittedQ, Metrics]:
    """`length` steps of every member's critics, which follow its policy: one scan over steps of a
    map over members. Metrics come back as [length, members]."""
    agents, states, fitted, discounts = members

    def step_family(fitted: FittedQ, step: Array) -> tuple[FittedQ, Metrics]:
        batch_key, act_key = jax.random.split(jax.random.fold_in(key, step))
        batch = data.sample(batch_key, settings.batch_size, {})
        keys = jax.random.split(act_key, settings.batch_size)

        def step_member(agent: Agent, state: State, critics: FittedQ, discount: Array) -> Any:
            actions = _actions(agent, state, batch.next_observations, keys, spec, policy)
            bounds = return_bounds(spec.reward_range, discount)
            return fqe_step(settings, critics, batch, actions, discount, bounds)

        stepped: tuple[FittedQ, Metrics]
        stepped = each_member(step_member, agents, states, fitted, discounts)
        return stepped

    return jax.lax.scan(step_family, fitted, start + jnp.arange(length))


def _actions(
    agent: Agent, state: State, observations: Array, keys: Array, spec: Spec, policy: PolicyKind
) -> Array:
    """An action for each observation [n, obs], each with noise of its own."""
    noise = jax.vmap(lambda key: agent.draw_act(key, spec))(keys)
    return actions_of(agent, state, observations, noise, policy)


def examine(
    agents: Agent,
    states: State,
    fitted: FittedQ,
    data: Dataset,
    chosen: NDArray[np.intp],
    spec: Spec,
    *,
    policy: PolicyKind,
    key: Array,
    on_block: Callable[[int], None] = lambda rows: None,
) -> dict[str, NDArray[np.float64]]:
    """What every member makes of some transitions (`chosen`, numbers into `data.rows`).

    Returns, each [members, n]: `distance`, (policy's action - data's)^2 per action dimension;
    `fitted` [members, n, critics], the fitted value of the policy's action; and where the agent
    has them `q`, its own value of the data's action, and `flow_loss`. `on_block(rows)` counts.
    """
    blocks = []
    rows = data.rows[chosen]
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        padded = np.pad(block, (0, BLOCK - len(block)), mode="edge")
        keys = jax.random.split(jax.random.fold_in(key, start), BLOCK)
        seen = jnp.asarray(data.observations[padded]), jnp.asarray(data.actions[padded])
        found = _examine(agents, (states, fitted), *seen, keys, spec, policy)
        blocks.append({n: np.asarray(v, np.float64)[:, : len(block)] for n, v in found.items()})
        on_block(len(block))
    return {name: np.concatenate([b[name] for b in blocks], axis=1) for name in blocks[0]}


@eqx.filter_jit
def _examine(
    agents: Agent,
    states: tuple[State, FittedQ],
    observations: Array,
    actions: Array,
    keys: Array,
    spec: Spec,
    policy: PolicyKind,
) -> dict[str, Array]:
    def member(agent: Any, state: State, fitted: FittedQ) -> dict[str, Array]:
        chosen = _actions(agent, state, observations, keys, spec, policy)
        found = {
            "distance": jnp.square(chosen - actions).mean(-1),
            "fitted": fitted.value(observations, chosen).T,
        }
        if isinstance(agent, Valued):
            found["q"] = agent.value(state, observations, actions)
        if hasattr(agent, "flow_gradient"):
            loss = partial(_flow_loss, agent, state, spec)
            found["flow_loss"] = jax.vmap(loss)(observations, actions, keys)
        return found

    return jax.vmap(member)(agents, *states)


def _flow_loss(
    agent: Any, state: State, spec: Spec, observation: Array, action: Array, key: Array
) -> Array:
    """The loss of the agent's flow on one transition, by its own definition."""
    one = replace(agent, batch_size=1)
    zero = jnp.zeros(1)
    batch = Batch(observation[None], action[None], zero, zero, observation[None])
    _, metrics = one.flow_gradient(state, batch, one.draw_flow(key, spec))
    loss: Array = metrics["flow/loss"]
    return loss
