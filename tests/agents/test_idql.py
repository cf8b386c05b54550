"""IDQL on a bandit of two modes, and its optimisers and averages by hand."""

from __future__ import annotations

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from tests.compiled import once

from deflow.agents.idql import IDQL, IDQLState, share_behavior
from deflow.behavior.diffusion import denoise
from deflow.core.agent import Phase
from deflow.core.types import Batch, Clock, Spec

SHARE, CENTRE, SPREAD = 0.7, 0.7, 0.05
"""Most actions are the worse ones, near -0.7; the reward is the action itself."""

SPEC = Spec(observation_dim=1, action_dim=1, reward_range=(-1.0, 1.0), total_steps=600)


def agent() -> IDQL:
    return IDQL(
        hidden=(32, 32),
        batch_size=128,
        learning_rate=3e-3,
        behavior_width=32,
        behavior_blocks=1,
        average_rate=0.02,
        tau=0.05,
        best_of=16,
    )


def bandit(key: Array, size: int) -> Batch:
    mode_key, noise_key = jax.random.split(key)
    modes = jnp.where(jax.random.uniform(mode_key, (size, 1)) < SHARE, -CENTRE, CENTRE)
    actions = modes + SPREAD * jax.random.normal(noise_key, (size, 1))
    nothing = jnp.zeros((size, 1))
    return Batch(nothing, actions, actions[:, 0], jnp.zeros(size), nothing)


@pytest.fixture(scope="module")
def states() -> IDQLState:
    """Three seeds after both phases."""
    own = agent()

    @jax.jit
    @jax.vmap
    def trained(key: Array) -> IDQLState:
        state = own.init(key, SPEC)
        for index, phase in enumerate(own.phases(SPEC, "staged")):

            def update(
                state: IDQLState, step: Array, phase=phase, index=index
            ) -> tuple[IDQLState, None]:
                keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, index), step))
                batch, noise = bandit(keys[0], phase.batch_size), phase.draw(own, keys[1])
                return phase.update(own, state, batch, noise, Clock(step, index))[0], None

            state, _ = jax.lax.scan(update, state, jnp.arange(phase.steps))
        return state

    return trained(jax.random.split(jax.random.key(0), 3))


def one(states: IDQLState, seed: int) -> IDQLState:
    return jax.tree.map(lambda leaf: leaf[seed], states)


@pytest.fixture(scope="module")
def noise() -> Array:
    draw = jax.vmap(lambda key: agent().draw_act(key, SPEC))
    return draw(jax.random.split(jax.random.key(1), 512))


def test_the_noise_of_an_act_holds_every_proposals_every_step(noise: Array):
    assert noise.shape == (512, 16, 5, 1)


@pytest.mark.parametrize("seed", range(3))
def test_the_behaviour_keeps_both_modes_and_their_shares(states, noise, seed: int):
    drawn = np.asarray(agent().propose(one(states, seed), jnp.zeros((512, 1)), noise[:, :1]))
    assert abs((drawn < 0).mean() - SHARE) < 0.12
    for sign in (-1, 1):
        assert abs(np.median(drawn[np.sign(drawn) == sign]) - sign * CENTRE) < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_the_best_of_several_lies_in_the_better_mode(states, noise, seed: int):
    state = one(states, seed)
    observations = jnp.zeros((512, 1))
    drawn = np.asarray(agent().act(state, observations, noise))
    assert (drawn > 0).mean() > 0.97
    assert abs(np.median(drawn) - CENTRE) < 0.2
    q = state.target_critic(observations[:2], jnp.asarray([[CENTRE], [-CENTRE]])).min(0)
    np.testing.assert_allclose(q, [CENTRE, -CENTRE], atol=0.1)


def test_the_behaviour_too_is_asked_for_the_best_of_several(states, noise):
    observations = jnp.zeros((8, 1))
    few = noise[:8]
    drawn = agent().propose(one(states, 0), observations, few)
    np.testing.assert_array_equal(drawn, agent().act(one(states, 0), observations, few))
    assert not np.array_equal(drawn, agent().propose(one(states, 0), observations, few[:, :1]))


def test_the_choice_is_by_the_smaller_target_critic_among_the_averages_samples(states, noise):
    """The target critics are made opposites, and the networks that must not be asked are gone."""
    state = one(states, 0)
    first, _ = state.target_critic.nets.members
    last = jax.tree.map(jnp.negative, first.layers[-1])
    second = eqx.tree_at(lambda net: net.layers[-1], first, last)
    state = eqx.tree_at(
        lambda s: (s.target_critic.nets.members, s.critic.model, s.behavior.model),
        state,
        ((first, second), None, None),
    )
    observations = jnp.zeros((512, 1))
    proposals = denoise(state.average, observations[:, None], noise)
    q = state.target_critic(jnp.zeros((512, 16, 1)), proposals)
    np.testing.assert_allclose(q[0], -q[1], atol=1e-6)
    drawn = agent().act(state, observations, noise)
    found = jnp.abs(state.target_critic(observations, drawn)[0])
    np.testing.assert_allclose(found, jnp.abs(q[0]).min(1), atol=1e-5)


def test_the_behaviour_comes_first_and_takes_twice_the_critics_steps():
    first, second = agent().phases(SPEC, "staged")
    assert [(first.name, first.steps), (second.name, second.steps)] == [
        ("behavior", 1200),
        ("value", 600),
    ]
    longer = dataclasses.replace(agent(), behavior_factor=5).phases(SPEC, "staged")
    assert longer[0].steps == 3000


def test_the_behaviour_steps_by_adamw_at_a_rate_that_falls_to_nothing():
    """Adam's first step is the gradient's sign; the decay is added before the rate."""
    own = dataclasses.replace(agent(), weight_decay=0.5)
    weight, gradient = jnp.asarray([2.0, -4.0]), jnp.asarray([10.0, -3.0])
    for done, left in ((0.0, 1.0), (0.5, 0.5), (1 / 3, 0.75), (1.0, 0.0)):
        rule = own.rule("behavior", done)
        step, _ = rule.update(gradient, rule.init(weight), weight)
        expected = -3e-3 * left * (np.sign(gradient) + 0.5 * weight)
        np.testing.assert_allclose(step, expected, rtol=1e-4, atol=1e-9)
    rule = own.rule("critic", 1.0)
    step, _ = rule.update(gradient, rule.init(weight), weight)
    np.testing.assert_allclose(step, -3e-3 * np.sign(gradient), rtol=1e-4)


def test_each_phase_moves_its_own_networks_and_averages(states):
    """The rate of the behaviour's last step is next to nothing, that of its first is not."""
    own, state = agent(), one(states, 0)
    apart = jax.tree.map(lambda leaf: leaf + 1, state.average)
    state = eqx.tree_at(lambda s: s.average, state, apart)
    behavior, value = own.phases(SPEC, "staged")
    batch = bandit(jax.random.key(2), 128)

    @partial(once, static_argnums=0)
    def moved(phase: Phase, step: Array) -> IDQLState:
        noise = phase.draw(own, jax.random.key(3))
        return phase.update(own, state, batch, noise, Clock(step))[0]

    def distance(one_: IDQLState, other: IDQLState) -> float:
        pairs = zip(jax.tree.leaves(one_), jax.tree.leaves(other), strict=True)
        return max(float(jnp.abs(a - b).max()) for a, b in pairs)

    first, last, valued = moved(behavior, 0), moved(behavior, 1199), moved(value, 0)
    assert distance(first.behavior.model, state.behavior.model) > 1e-4
    assert distance(last.behavior.model, state.behavior.model) < 1e-7
    for name in ("critic", "target_critic", "value"):
        assert distance(getattr(first, name), getattr(state, name)) == 0
        assert distance(getattr(valued, name), getattr(state, name)) > 0
    assert distance(valued.behavior, state.behavior) == 0
    assert distance(valued.average, state.average) == 0
    expected = jax.tree.map(lambda a, b: 0.98 * a + 0.02 * b, state.average, state.behavior.model)
    assert distance(first.average, expected) < 1e-5


def test_a_behaviour_can_be_given_to_another(states):
    mine, theirs = one(states, 0), one(states, 1)
    given = share_behavior(mine, theirs)
    assert eqx.tree_equal((given.behavior, given.average), (theirs.behavior, theirs.average))
    assert eqx.tree_equal((given.critic, given.value), (mine.critic, mine.value))
