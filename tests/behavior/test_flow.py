"""The flow against closed forms, and a small one trained on two modes."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Array

from deflow.behavior.flow import VectorField, flow_matching_loss, integrate
from deflow.nn.learner import Learner

NOTHING = np.zeros((4, 1))
"""Observations for fields that look at none."""

reach = jax.jit(integrate, static_argnums=(0, 3))

steps_counts = st.sampled_from([1, 2, 3, 10])
small = st.floats(-0.25, 0.25)


@partial(jax.jit, static_argnums=1)
def moved(velocity: Array, steps: int, x0: Array) -> Array:
    """Where a constant field moves two-dimensional actions."""
    start = jnp.full((4, 2), x0)
    return integrate(lambda s, x, t: jnp.full_like(x, velocity), NOTHING, start, steps)


@settings(max_examples=30)
@given(steps=steps_counts, velocity=small, x0=st.floats(-0.5, 0.5))
def test_a_constant_field_moves_by_itself_whatever_the_steps(
    steps: int, velocity: float, x0: float
):
    np.testing.assert_allclose(moved(velocity, steps, x0), x0 + velocity, rtol=1e-5, atol=1e-6)


@partial(jax.jit, static_argnums=1)
def grown(rate: Array, steps: int, x0: Array) -> Array:
    """Where a linear field moves two-dimensional actions."""
    return integrate(lambda s, x, t: rate * x, NOTHING, jnp.full((4, 2), x0), steps)


@settings(max_examples=30)
@given(steps=steps_counts, rate=st.floats(-3, 1), x0=small)
def test_a_linear_field_follows_eulers_recursion(steps: int, rate: float, x0: float):
    exact = np.clip((1 + rate / steps) ** steps * x0, -1, 1)
    np.testing.assert_allclose(grown(rate, steps, x0), exact, rtol=1e-4, atol=1e-5)


@settings(max_examples=30)
@given(steps=steps_counts)
def test_time_runs_from_zero_and_stops_one_step_short_of_one(steps: int):
    """The sum of i / steps over the steps, divided by their number."""
    reached = reach(lambda s, x, t: jnp.broadcast_to(t, x.shape), NOTHING, NOTHING - 0.5, steps)
    np.testing.assert_allclose(reached, -0.5 + (steps - 1) / (2 * steps), atol=1e-6)


def test_the_box_is_kept_at_the_end_alone():
    def out_and_back(s: Array, x: Array, t: Array) -> Array:
        return jnp.where(t < 0.5, 8.0, -7.6) * jnp.ones_like(x)

    reached = reach(out_and_back, NOTHING, np.zeros((4, 2)), 10)
    np.testing.assert_allclose(reached, 0.2, atol=1e-5)
    beyond = reach(lambda s, x, t: 8.0 * jnp.ones_like(x), NOTHING, np.zeros((4, 2)), 10)
    assert np.all(np.asarray(beyond) == 1)


def test_observations_reach_the_field():
    observations = np.array([[0.1], [0.2], [-0.3], [0.4]])
    reached = reach(lambda s, x, t: jnp.broadcast_to(s, x.shape), observations, NOTHING, 5)
    np.testing.assert_allclose(reached, observations, atol=1e-6)


@jax.jit
def loss_beside(shift: Array, action: Array, x0: Array, t: Array) -> Array:
    """Of a field that is off by a shift, where the data are a single action."""
    field = lambda s, x, t: (action - x) / (1 - t) + shift  # noqa: E731
    actions = jnp.broadcast_to(action, x0.shape)
    return flow_matching_loss(field, jnp.zeros_like(t), actions, x0, t)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31 - 1))
def test_the_loss_vanishes_for_the_exact_field_of_one_action(seed: int):
    """On the straight path to an action a the velocity is (a - x) / (1 - t)."""
    rng = np.random.default_rng(seed)
    draws = rng.uniform(-1, 1, 3), rng.normal(size=(16, 3)), rng.uniform(0, 0.9, (16, 1))
    assert float(loss_beside(0.0, *draws)) < 1e-9
    np.testing.assert_allclose(loss_beside(0.5, *draws), 0.25, rtol=1e-3)


def test_the_loss_averages_over_the_actions_dimensions_too():
    actions, x0 = np.ones((2, 4)), np.zeros((2, 4))
    loss = jax.jit(flow_matching_loss, static_argnums=0)(
        lambda s, x, t: jnp.zeros_like(x), NOTHING[:2], actions, x0, np.zeros((2, 1))
    )
    assert float(loss) == 1.0


SHARE, CENTRE, SPREAD = 0.3, 0.6, 0.05


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """[3 seeds, samples]: what three small flows draw after 1500 steps on data of two modes."""
    rule = optax.adam(3e-3)

    def update(learner: Learner[VectorField], key: Array) -> tuple[Learner[VectorField], None]:
        keys = jax.random.split(key, 4)
        left = jax.random.uniform(keys[0], (256, 1)) < SHARE
        actions = jnp.where(left, -CENTRE, CENTRE) + SPREAD * jax.random.normal(keys[1], (256, 1))
        x0, t = jax.random.normal(keys[2], (256, 1)), jax.random.uniform(keys[3], (256, 1))
        grads = jax.grad(flow_matching_loss)(learner.model, jnp.zeros((256, 1)), actions, x0, t)
        return learner.step(grads, rule), None

    @jax.jit
    @jax.vmap
    def trained(key: Array) -> Array:
        net_key, train_key, test_key = jax.random.split(key, 3)
        learner = Learner.create(VectorField(1, 1, (32, 32), key=net_key), rule)
        learner, _ = jax.lax.scan(update, learner, jax.random.split(train_key, 1500))
        noise = jax.random.normal(test_key, (4096, 1))
        return integrate(learner.model, jnp.zeros((4096, 1)), noise, 10)[:, 0]

    return np.asarray(trained(jax.random.split(jax.random.key(0), 3)))


@pytest.mark.parametrize("seed", range(3))
def test_a_small_flow_reproduces_both_modes_and_their_shares(samples: np.ndarray, seed: int):
    drawn = samples[seed]
    assert abs((drawn < 0).mean() - SHARE) < 0.05
    assert (np.abs(np.abs(drawn) - CENTRE) < 4 * SPREAD).mean() > 0.9
    for sign in (-1, 1):
        mode = drawn[np.sign(drawn) == sign]
        assert abs(np.median(mode) - sign * CENTRE) < 0.05
