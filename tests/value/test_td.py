"""Targets by their definition, and a chain whose values are known."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Array

from deflow.nn.learner import Learner, polyak
from deflow.value.td import Critic, aggregate, td_loss, td_target

values = st.floats(-1000, 1000, width=32, allow_subnormal=False)
shapes = st.sampled_from([(1, 1), (2, 5), (3, 2)])
tables = shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=values))


@settings(max_examples=30)
@given(tables)
def test_aggregation_is_the_mean_or_the_least(q: np.ndarray):
    np.testing.assert_array_equal(aggregate(jnp.asarray(q), "min"), q.min(0))
    np.testing.assert_allclose(aggregate(jnp.asarray(q), "mean"), q.mean(0), rtol=1e-4, atol=1e-3)
    alone = jnp.asarray(q[:1])
    np.testing.assert_array_equal(aggregate(alone, "min"), aggregate(alone, "mean"))


@settings(max_examples=30)
@given(tables, st.floats(0, 1, width=32), st.integers(0, 2**31 - 1))
def test_nothing_is_bootstrapped_where_the_episode_ended(q: np.ndarray, discount: float, seed: int):
    rng = np.random.default_rng(seed)
    rewards = rng.normal(size=q.shape[1]).astype(np.float32)
    masks = rng.integers(0, 2, q.shape[1]).astype(np.float32)
    target = np.asarray(td_target(rewards, masks, jnp.asarray(q[0]), discount))
    ended = masks == 0
    np.testing.assert_array_equal(target[ended], rewards[ended])
    expected = rewards + np.float32(discount) * q[0]
    np.testing.assert_allclose(target[~ended], expected[~ended], rtol=1e-5, atol=1e-5)


@settings(max_examples=30)
@given(tables)
def test_the_loss_is_a_mean_over_batch_and_ensemble(q: np.ndarray):
    target = q[0] * 0.5
    expected = np.mean((q.astype(np.float64) - target) ** 2)
    nothing = jnp.zeros((q.shape[1], 1))
    loss, metrics = td_loss(lambda s, a: jnp.asarray(q), nothing, nothing, target)
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-6)
    assert metrics["critic/q_min"] == q.min()


DISCOUNT = 0.9
CHAIN = np.array([0.81, 0.9, 1.0])
"""States 0 -> 1 -> 2 -> end, with reward 1 for the last step alone."""
TOLERANCE = 0.02


@pytest.fixture(scope="module")
def learnt() -> np.ndarray:
    """[3 seeds, 2 critics, 3 states] after 2000 steps of a small ensemble on the chain."""
    rule = optax.adam(3e-3)
    states, action = jnp.eye(3), jnp.zeros((3, 1))
    rewards, masks = jnp.asarray([0.0, 0.0, 1.0]), jnp.asarray([1.0, 1.0, 0.0])
    # What follows the last step is the first state: only the mask keeps its value out.
    following = states[jnp.asarray([1, 2, 0])]

    def loss(critic: Critic, target: Critic) -> Array:
        next_values = aggregate(target(following, action), "mean")
        y = td_target(rewards, masks, next_values, DISCOUNT)
        return td_loss(critic, states, action, y)[0]

    def update(carry: tuple[Learner[Critic], Critic], _: None) -> tuple[object, None]:
        learner, target = carry
        grads = eqx.filter_grad(loss)(learner.model, target)
        return (learner.step(grads, rule), polyak(target, learner.model, 0.05)), None

    @jax.jit
    @jax.vmap
    def trained(key: Array) -> Array:
        critic = Critic(3, 1, (16, 16), key=key)
        start = (Learner.create(critic, rule), critic)
        (learner, _), _ = jax.lax.scan(update, start, None, length=2000)
        return learner.model(states, action)

    return np.asarray(trained(jax.random.split(jax.random.key(0), 3)))


@pytest.mark.parametrize("seed", range(3))
def test_a_critic_learns_the_values_of_a_chain(learnt: np.ndarray, seed: int):
    assert np.abs(learnt[seed] - CHAIN).max() < TOLERANCE


def test_the_members_of_an_ensemble_begin_apart():
    critic = Critic(3, 1, (16,), count=4, key=jax.random.key(1))
    q = critic(jnp.eye(3), jnp.zeros((3, 1)))
    assert q.shape == (4, 3)
    assert len(np.unique(np.asarray(q[:, 0]))) == 4
