"""The trust region on a value that is known: how far the residual goes, and where to."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Array
from tests.compiled import once

from deflow.extraction.climbing import value_loss
from deflow.extraction.multiplier import MultiplierForm, multiplier_loss
from deflow.extraction.refinement import Refinement, refine, squared_residual
from deflow.nn.learner import Learner

FORMS: tuple[MultiplierForm, ...] = ("log", "linear")

squared_of = once(squared_residual, static_argnums=1)
refined_by = once(refine)
value_loss_of = once(value_loss, static_argnames="normalize")
pull_of = once(jax.grad(multiplier_loss, argnums=(0, 1)), static_argnums=3)

shapes = st.sampled_from([(1, 1), (3, 5), (8, 2)])
numbers = st.floats(-3, 3, width=32, allow_subnormal=False)
residuals = shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=numbers))


@settings(max_examples=30)
@given(residuals)
def test_sum_and_mean_differ_by_the_actions_dimension(delta: np.ndarray):
    total, mean = (float(squared_of(delta, how)) for how in ("sum", "mean"))
    np.testing.assert_allclose(total, delta.shape[1] * mean, rtol=1e-5, atol=1e-12)
    expected = (delta.astype(np.float64) ** 2).sum(1).mean()
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-12)


@settings(max_examples=30)
@given(residuals, st.floats(-1, 1, width=32, allow_subnormal=False))
def test_a_refined_action_stays_in_the_box(delta: np.ndarray, proposal: float):
    refined = np.asarray(refined_by(np.full_like(delta, proposal), delta))
    np.testing.assert_array_equal(refined, np.clip(np.float32(proposal) + delta, -1, 1))


@settings(max_examples=30)
@given(
    hnp.arrays(np.float32, 6, elements=st.floats(-50, 50, width=32, allow_subnormal=False)),
    st.floats(0.1, 100),
)
def test_the_normalised_value_has_no_scale(q: np.ndarray, scale: float):
    if np.abs(q).mean() < 1e-3:
        return
    one = value_loss_of(q, normalize=True)
    other = value_loss_of(scale * q, normalize=True)
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(one, -q.mean() / np.abs(q).mean(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(value_loss_of(q, normalize=False), -q.mean(), atol=1e-4)


def test_the_scale_of_the_value_takes_no_gradient():
    q = np.array([1.0, 2.0, 5.0])
    gradient = once(jax.grad(lambda q: value_loss(q, normalize=True)))(q)
    np.testing.assert_allclose(gradient, -np.ones(3) / 3 / (8 / 3), rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=30)
@given(log_alpha=st.floats(-3, 3), squared=st.floats(0, 0.1), delta=st.floats(1e-4, 0.1))
def test_the_multiplier_rises_over_budget_and_falls_under_it(
    form: MultiplierForm, log_alpha: float, squared: float, delta: float
):
    """Descent takes the gradient's opposite; only the linear form's pace depends on alpha."""
    gradient, _ = pull_of(log_alpha, squared, delta, form)
    weight = 1.0 if form == "log" else np.exp(log_alpha)
    np.testing.assert_allclose(-float(gradient), weight * (squared - delta), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("form", FORMS)
def test_the_multipliers_loss_does_not_pull_on_the_residual(form: MultiplierForm):
    assert float(pull_of(0.3, 0.02, 0.01, form)[1]) == 0


# Training --------------------------------------------------------------------------------------

DELTA = 0.01


@partial(jax.jit, static_argnums=0)
def run(form: MultiplierForm, share: Array, shift: Array, key: Array) -> tuple[Array, ...]:
    rule = optax.adam(3e-3)

    def aim(base: Array) -> Array:
        return share * base + shift

    def propose(key: Array) -> Array:
        return jax.random.uniform(key, (128, 2), minval=-0.3, maxval=0.3)

    def loss(net: Refinement, base: Array, alpha: Array) -> tuple[Array, Array]:
        residual = net(jnp.zeros((128, 1)), base)
        q = -jnp.sum(jnp.square(refine(base, residual) - aim(base)), axis=-1)
        squared = squared_residual(residual, "mean")
        return value_loss(q, normalize=False) + alpha * squared, squared

    def update(carry: tuple[Learner, Learner], key: Array) -> tuple[object, Array]:
        net, log_alpha = carry
        alpha = jnp.exp(log_alpha.model)
        grads, squared = jax.grad(loss, has_aux=True)(net.model, propose(key), alpha)
        pull = jax.grad(multiplier_loss)(log_alpha.model, squared, DELTA, form)
        return (net.step(grads, rule), log_alpha.step(pull, rule)), squared

    net_key, train_key, test_key = jax.random.split(key, 3)
    learners = (
        Learner.create(Refinement(1, 2, (32, 32), key=net_key), rule),
        Learner.create(jnp.asarray(1.0), rule),
    )
    (net, log_alpha), squares = jax.lax.scan(update, learners, jax.random.split(train_key, 3000))
    base = propose(test_key)
    residual = net.model(jnp.zeros((128, 1)), base)
    return base, residual, aim(base) - base, squares[-500:], log_alpha.model


def trained(form: MultiplierForm, share: float, shift: np.ndarray) -> dict[str, np.ndarray]:
    """Residuals of a refinement that climbs Q(a) = -||a - aim||^2 within the budget, where the aim
    is `share` of the proposal and a shift."""
    found = map(np.asarray, run(form, share, shift, jax.random.key(0)))
    base, residual, aim, squares, log_alpha = found
    return {
        "base": base,
        "residual": residual,
        "aim": aim,
        "squared": squares.mean(),
        "log_alpha": log_alpha,
    }


@pytest.mark.parametrize("form", FORMS)
def test_towards_a_far_optimum_the_residual_spends_its_budget(form: MultiplierForm):
    found = trained(form, share=0.0, shift=np.array([0.9, -0.8]))
    np.testing.assert_allclose(found["squared"], DELTA, rtol=0.1)
    residual, aim = found["residual"], found["aim"]
    cosine = (residual * aim).sum(1) / np.linalg.norm(residual, axis=1)
    assert (cosine / np.linalg.norm(aim, axis=1)).min() > 0.9
    assert found["log_alpha"] > 1


@pytest.mark.parametrize("form", FORMS)
def test_an_optimum_inside_the_trust_region_is_reached(form: MultiplierForm):
    """Its distance asks for half the budget, so the multiplier dies away."""
    step = np.sqrt(DELTA / 2) * np.array([1.0, -1.0])
    found = trained(form, share=1.0, shift=step)
    assert np.abs(found["residual"] - found["aim"]).max() < 0.02
    np.testing.assert_allclose(found["squared"], DELTA / 2, rtol=0.2)
    assert found["log_alpha"] < 1
