"""The squashed Gaussian: densities that integrate to 1 and stay finite, and where it begins."""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.compiled import once

from deflow.behavior.squashed import ScaledSquashed, Squashed, log_slope

FORMS = (Squashed, ScaledSquashed)

slope = once(log_slope)
steepness = once(jax.grad(log_slope))
stated = once(lambda policy, observations: policy(observations))
sample = once(lambda policy, observations, noise: policy.sample(observations, noise))


@partial(once, static_argnums=(0, 1, 2, 3))
def built(form: Any, obs: int, act: int, hidden: tuple[int, ...], seed: int) -> Squashed:
    made: Squashed = form(obs, act, hidden, key=jax.random.key(seed))
    return made


def policy(form: Any = Squashed, means: float = 0.0, head: float = 0.0, act: int = 1) -> Squashed:
    """A policy that says the same in every state: these numbers come out of its last layer."""
    made = built(form, 2, act, (4,), 0)
    last = made.net.layers[-1]
    bias = np.concatenate([np.full(act, means), np.full(act, head)]).astype(np.float32)
    fixed: Squashed = eqx.tree_at(
        lambda p: (p.net.layers[-1].weight, p.net.layers[-1].bias),
        made,
        (np.zeros_like(last.weight), bias),
    )
    return fixed


@given(u=st.floats(-200, 200))
def test_the_slope_of_tanh_is_known_everywhere(u: float):
    # In double precision 1 - tanh(u)^2 = 4 / (e^u + e^-u)^2.
    exact = np.log(4) - 2 * np.logaddexp(u, -u)
    assert float(slope(u)) == pytest.approx(exact, rel=1e-5, abs=1e-5)


@given(u=st.floats(-50, 50))
def test_the_slope_has_a_gradient_everywhere(u: float):
    gradient = float(steepness(u))
    assert gradient == pytest.approx(-2 * np.tanh(u), abs=1e-4)


@pytest.mark.parametrize(("means", "head"), [(0.0, 0.0), (0.8, -1.0), (-1.5, 0.5)])
def test_the_density_integrates_to_one(means: float, head: float):
    """Over a fine grid of u, that is of actions; the density of a is what `sample` reports."""
    made = policy(means=means, head=head)
    noise = np.linspace(-8, 8, 40_001)[:, None]
    actions, log_probs = sample(made, np.zeros((1, 2)), noise)
    total = np.trapezoid(np.exp(np.asarray(log_probs, np.float64)), np.asarray(actions)[:, 0])
    assert total == pytest.approx(1, abs=2e-3)


def test_a_density_over_several_dimensions_is_the_product():
    noise = np.array([[0.3, -1.2]])
    both = sample(policy(means=0.4, head=-0.5, act=2), np.zeros((1, 2)), noise)[1]
    single = policy(means=0.4, head=-0.5)
    each = [sample(single, np.zeros((1, 2)), noise[:, i : i + 1])[1] for i in range(2)]
    np.testing.assert_allclose(both, np.sum(each, axis=0), rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_extreme_actions_have_finite_densities_and_gradients(form: Any):
    made = policy(form, means=40.0, head=50.0)  # The deviation is cut to e^2.
    noise = np.array([[-30.0], [0.0], [30.0]])

    def total(made: Squashed) -> Any:
        return made.sample(jnp.zeros((3, 2)), noise)[1].sum()

    actions, log_probs = sample(made, np.zeros((3, 2)), noise)
    assert np.isfinite(log_probs).all()
    assert np.abs(actions).max() <= 1
    grads = jax.tree.leaves(once(jax.grad(total))(made))
    assert all(np.isfinite(leaf).all() for leaf in grads)


@pytest.mark.parametrize(
    ("form", "low", "high"), [(Squashed, -5, 2), (ScaledSquashed, -20, 2)], ids=str
)
def test_the_deviation_is_cut(form: Any, low: float, high: float):
    for head, bound in ((-99.0, low), (99.0, high)):
        _, log_stds = stated(policy(form, head=head), np.zeros(2))
        np.testing.assert_allclose(log_stds, bound)


def test_the_scaled_form_begins_at_one_and_minus_one_and_learns_both():
    made = policy(ScaledSquashed, head=0.3)
    np.testing.assert_allclose(stated(made, np.zeros(2))[1], 0.3 - 1, rtol=1e-6)
    grads = once(jax.grad(lambda p: p(jnp.zeros((1, 2)))[1].sum()))(made)
    assert float(grads.multiplier) == pytest.approx(0.3)
    assert float(grads.offset) == pytest.approx(1)


@pytest.mark.parametrize("form", FORMS)
def test_it_begins_near_the_middle_and_its_mode_is_the_sample_without_noise(form: Any):
    made = built(form, 8, 3, (64, 64), 1)
    observations = jax.random.normal(jax.random.key(2), (32, 8))
    mode = once(lambda policy, observations: policy.mode(observations))(made, observations)
    assert np.abs(mode).max() < 0.2
    same, _ = sample(made, observations, np.zeros((32, 3)))
    np.testing.assert_allclose(mode, same)


def test_heads_have_the_variance_that_each_would_have_alone():
    """Glorot's bound of a layer from 16 to 3, times the root of the scale: not of 16 to 6."""
    heads = [built(Squashed, 4, 3, (16,), seed).net.layers[-1].weight for seed in range(99)]
    bound = np.sqrt(6 / (16 + 3) * 0.01)
    assert 0.99 * bound < np.abs(heads).max() <= bound


def test_several_actions_for_each_state_stand_on_leading_axes():
    made = built(Squashed, 2, 3, (8,), 3)
    observations = jax.random.normal(jax.random.key(4), (5, 2))
    noise = jax.random.normal(jax.random.key(5), (4, 5, 3))
    actions, log_probs = map(np.asarray, sample(made, observations, noise))
    assert (actions.shape, log_probs.shape) == ((4, 5, 3), (4, 5))
    alone, log_alone = sample(made, observations, noise[2])
    np.testing.assert_allclose(actions[2], alone, rtol=1e-6)
    np.testing.assert_allclose(log_probs[2], log_alone, rtol=1e-5)
