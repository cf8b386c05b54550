"""Decision Flow's phases, and what its two variants do to a flow on a value that is known."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from tests.compiled import once

from deflow.agents.decision_flow import DecisionFlow, DFDir, DFDiv, DFState
from deflow.core.agent import Phase
from deflow.core.types import Batch, Clock, Spec
from deflow.extraction.decision_flow import at_step, rollout, unit
from deflow.nn.learner import polyak

SPEC = Spec(observation_dim=3, action_dim=2, reward_range=(-1.0, 0.0), total_steps=400)
SMALL: dict[str, Any] = {"hidden": (8, 8), "batch_size": 8, "integration_steps": 4}
VARIANTS = [DFDir, DFDiv]


def same(one: Any, other: Any) -> bool:
    return bool(eqx.tree_equal(one, other))


@pytest.fixture(scope="module")
def batch() -> Batch:
    keys = jax.random.split(jax.random.key(1), 5)
    actions = jax.random.uniform(keys[1], (8, 2), minval=-1)
    return Batch(
        observations=jax.random.normal(keys[0], (8, 3)),
        actions=actions,
        rewards=-jax.random.uniform(keys[2], (8,)),
        masks=jnp.ones(8),
        next_observations=jax.random.normal(keys[3], (8, 3)),
        fields={"previous_actions": jax.random.uniform(keys[4], (8, 2))},
    )


@pytest.fixture(scope="module", params=VARIANTS)
def stepped(request: Any, batch: Batch) -> tuple[DecisionFlow, DFState, DFState, DFState]:
    """An agent, a state, and that state after a policy update at step 0 and at step 1."""
    own = request.param(**SMALL)
    *_, phase = own.phases(SPEC, "staged")

    @once
    def begun(key: Array) -> DFState:
        state = own.init(key, SPEC)
        if own.name == "df-div":
            apart = jax.tree.map(lambda leaf: 0.9 * leaf, state.target_flow_value)
            state = eqx.tree_at(lambda s: s.target_flow_value, state, apart)
        return state

    @once
    def update(state: DFState, step: Array) -> DFState:
        noise = phase.draw(own, jax.random.key(2))
        return phase.update(own, state, batch, noise, Clock(step, 2))[0]

    state = begun(jax.random.key(2))
    return own, state, *(update(state, jnp.asarray(step)) for step in (0, 1))


def test_behaviour_comes_first_then_values_then_the_policy():
    for variant in VARIANTS:
        own = variant(**SMALL, behavior_steps=7, value_steps=5)
        phases = own.phases(SPEC, "staged")
        assert [(p.name, p.steps) for p in phases] == [
            ("behavior", 7),
            ("value", 5),
            ("policy", 400),
        ]
        assert [p.graft is not None for p in phases] == [True, False, False]
        assert [p.steps for p in variant(**SMALL).phases(SPEC, "staged")] == [400] * 3


def test_the_policy_begins_as_the_behaviour(stepped: Any):
    """Adam's first step moves each number by at most its rate."""
    _, state, first, second = stepped
    far = lambda one, other: max(  # noqa: E731
        np.abs(a - b).max()
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )
    assert far(first.policy.model, state.flow.model) < 3.1e-4
    assert far(second.policy.model, state.policy.model) < 3.1e-4
    assert far(first.policy.model, state.policy.model) > 0.01


def test_behaviour_and_critics_rest_while_the_policy_learns(stepped: Any):
    _, state, first, _ = stepped
    for name in ("flow", "critic", "target_critic", "value"):
        assert same(getattr(first, name), getattr(state, name)), name
    for name in ("policy", "flow_value"):
        assert not same(getattr(first, name), getattr(state, name)), name


def test_the_lagging_value_follows_at_its_rate(stepped: Any):
    own, state, first, _ = stepped
    if own.name == "df-dir":
        assert first.target_flow_value is None
        return
    expected = polyak(state.target_flow_value, state.flow_value.model, 0.005)
    for one, other in zip(
        jax.tree.leaves(first.target_flow_value), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_a_dropped_previous_action_narrows_the_value_alone():
    width = lambda value: value.net.layers[0].weight.shape[0]  # noqa: E731
    found = {}
    for flag in (True, False):
        own = DFDiv(**SMALL, previous_action=flag)
        begun = jax.eval_shape(lambda key, own=own: own.init(key, SPEC), jax.random.key(0))
        found[flag] = [
            width(begun.flow_value.model),
            width(begun.target_flow_value),
            width(begun.flow_critic.model),
        ]
        fields = [phase.fields for phase in own.phases(SPEC, "staged")]
        assert fields == [(), (), ("previous_actions",) if flag else ()]
    # Observation 3, time 1, and two actions' widths of 2 or one; the velocity's value has its own.
    assert found == {True: [8, 8, 8], False: [6, 6, 8]}


@pytest.mark.parametrize("flag", [True, False])
def test_the_value_sees_the_previous_action_where_asked(batch: Batch, flag: bool):
    own = DFDiv(**SMALL, previous_action=flag)

    @once
    def loss(shift: Array) -> Array:
        state = own.init(jax.random.key(2), SPEC)
        noise = own.draw_states(jax.random.key(3), SPEC)
        fields = {"previous_actions": batch.fields["previous_actions"] + shift}
        moved = eqx.tree_at(lambda b: b.fields, batch, fields)
        _, metrics = own.policy_gradients(state, moved, noise, Clock(jnp.asarray(0)))
        return metrics["flow_value/loss"]

    assert (float(loss(jnp.asarray(0.0))) != float(loss(jnp.asarray(1.0)))) == flag


# Training --------------------------------------------------------------------------------------

BANDIT = Spec(observation_dim=1, action_dim=2, reward_range=(-1.0, 1.0), total_steps=600)
SLOPE = np.array([0.8, -0.6], np.float32)
RHOS = (0.03, 1.0, 100.0)
ROWS = 64


class Known(eqx.Module):
    """Two critics whose smaller one is Q(s, a) = 2 + slope . a."""

    def __call__(self, observations: Array, actions: Array) -> Array:
        q = 2 + actions @ SLOPE
        return jnp.stack([q, q + 1])


@pytest.fixture(scope="module", params=VARIANTS)
def trained(request: Any) -> dict[str, np.ndarray]:
    """[rho, seed]: how a trained policy differs from the behaviour, a blob around zero."""
    base = request.param(hidden=(32, 32), batch_size=ROWS, integration_steps=5, learning_rate=3e-3)
    behavior, _, policy = base.phases(BANDIT, "staged")
    nothing = jnp.zeros((ROWS, 1))

    @jax.jit
    @jax.vmap
    def run(rho: Array, key: Array) -> dict[str, Array]:
        own = eqx.tree_at(lambda a: a.rho, base, rho)
        init_key, key = jax.random.split(key)
        state = own.init(init_key, BANDIT)

        def follow(state: DFState, phase: Phase) -> DFState:
            def step(state: DFState, index: Array) -> tuple[DFState, None]:
                data_key, noise_key = jax.random.split(jax.random.fold_in(key, index))
                actions = jnp.clip(0.2 * jax.random.normal(data_key, (ROWS, 2)), -1, 1)
                fields = {"previous_actions": jnp.zeros((ROWS, 2))}
                batch = Batch(nothing, actions, nothing[:, 0], nothing[:, 0], nothing, fields)
                noise = phase.draw(own, noise_key)
                return phase.update(own, state, batch, noise, Clock(index))[0], None

            return jax.lax.scan(step, state, jnp.arange(600))[0]

        known = eqx.tree_at(lambda s: s.target_critic, state, Known())
        state = follow(follow(known, behavior), policy)
        observations, x0 = jnp.zeros((512, 1)), jax.random.normal(key, (512, 2))
        cloned = own.propose(state, observations, x0)
        steered = own.act(state, observations, x0)
        states, velocities = rollout(state.policy.model, observations, x0, jnp.zeros(512, int), 5)
        index = jnp.arange(512) % 5
        x, t = at_step(states, index), index[:, None] / 5
        turn = lambda u: (unit(u) @ SLOPE).mean()  # noqa: E731
        return {
            "moved": jnp.linalg.norm(steered - cloned, axis=-1).mean(),
            "gain": ((steered - cloned) @ SLOPE).mean(),
            "before": turn(state.flow.model(observations, x, t)),
            "after": turn(at_step(velocities, index)),
        }

    keys = jax.random.split(jax.random.key(0), 3)
    rhos = jnp.repeat(jnp.asarray(RHOS), 3)
    found = run(rhos, jnp.concatenate([keys] * 3))
    return {name: np.asarray(values).reshape(3, 3) for name, values in found.items()}


@pytest.mark.parametrize("seed", range(3))
def test_steps_turn_towards_the_gradient_of_q(trained: dict[str, np.ndarray], seed: int):
    before, after = trained["before"][:, seed], trained["after"][:, seed]
    assert after[0] > before[0] + 0.2
    assert trained["gain"][0, seed] > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_the_policy_stays_by_the_behaviour_as_rho_grows(trained: dict[str, np.ndarray], seed: int):
    moved = trained["moved"][:, seed]
    assert moved[0] > moved[1] > moved[2]
    assert moved[2] < 0.05
    assert moved[0] > 0.2
