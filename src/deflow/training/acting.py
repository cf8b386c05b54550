"""The compiled programs of learning online: one action of every member, and its updates.

They are called at every step, so by plain `jax.jit`: Equinox's own takes longer to sort out its
arguments.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from deflow.core.agent import Agent, Online, State
from deflow.core.types import Batch, Metrics, Spec
from deflow.training.device_data import DeviceData
from deflow.training.family import Family, each_member, one_update
from deflow.training.replay import Reach, sample


@partial(jax.jit, static_argnames=("random_steps", "spec"))
def explore(
    family: Family,
    states: State,
    observations: ArrayLike,
    step: Array,
    random_steps: int,
    spec: Spec,
) -> Float[Array, "members act"]:
    """What every member tries at a step, seeing observations [members, obs]: uniform actions in the
    first `random_steps`. The draws depend on the member's key and the step alone."""

    def act(agent: Agent, state: State, key: PRNGKeyArray, observation: Array) -> Array:
        noise_key, random_key = jax.random.split(jax.random.fold_in(key, step))
        noise = jax.tree.map(lambda leaf: leaf[None], agent.draw_act(noise_key, spec))
        action = agent.act(state, observation[None], noise, "explore")[0]
        if random_steps:
            anything = jax.random.uniform(random_key, action.shape, minval=-1, maxval=1)
            action = jnp.where(step < random_steps, anything, action)
        # A member that has just diverged stands still until the guard names it.
        return jnp.nan_to_num(action)

    actions: Array = each_member(
        act, family.agents, states, family.act_keys, jnp.asarray(observations)
    )
    return actions


@partial(jax.jit, static_argnames=("online", "phase_index", "updates"))
def learn(
    family: Family,
    states: State,
    data: DeviceData | None,
    columns: dict[str, Array],
    replay: Batch,
    reach: Reach,
    start: Array,
    online: Online,
    phase_index: int,
    updates: int,
) -> tuple[State, Metrics]:
    """`updates` updates of every member, from gradient step `start` of the phase, on batches of
    data and replay. Metrics come back as [updates, members]."""

    def member(
        agent: Agent, state: State, key: PRNGKeyArray, replay: Batch, reach: Reach
    ) -> tuple[State, Metrics]:
        def update(state: State, step: Array) -> tuple[State, Metrics]:
            draw = lambda key, size: sample(  # noqa: E731
                key, size, data, columns, replay, reach, online.balanced
            )
            return one_update(agent, state, key, draw, step, online.phase, phase_index)

        if updates > 1:
            return jax.lax.scan(update, state, start + jnp.arange(updates))
        state, metrics = update(state, start)
        return state, jax.tree.map(lambda value: value[None], metrics)

    states, metrics = each_member(member, family.agents, states, family.train_keys, replay, reach)
    return states, jax.tree.map(lambda values: values.T, metrics)
