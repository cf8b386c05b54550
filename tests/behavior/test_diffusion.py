"""The diffusion against closed forms, and a small one trained on two modes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Array
from tests.compiled import once

from deflow.behavior.diffusion import (
    DiffusionNoise,
    NoiseModel,
    betas,
    continuous_scales,
    denoise,
    discrete_scales,
    draw_levels,
    noise_loss,
    perturb,
)
from deflow.nn.learner import Learner
from deflow.nn.resnet import draw_dropout

STEPS = st.sampled_from([1, 2, 5, 20])

rates = once(betas, static_argnums=0)
discrete = once(discrete_scales, static_argnums=1)
continuous = once(continuous_scales)
loss_of = once(noise_loss, static_argnums=0)


# Schedules -------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(STEPS)
def test_betas_integrate_a_rate_that_grows_from_a_tenth_to_ten(steps: int):
    """-log(1 - beta_t) is the integral of b(s) = 0.1 + 9.9 s from (t - 1)/T to t/T."""
    edges = np.linspace(0, 1, steps + 1)
    rate = 0.1 + 9.9 * edges
    integral = (rate[1:] + rate[:-1]) / 2 / steps  # exact, since the rate is linear
    np.testing.assert_allclose(rates(steps), 1 - np.exp(-integral), rtol=1e-4)


@settings(max_examples=30)
@given(st.floats(0.001, 1))
def test_continuous_time_integrates_a_rate_that_grows_from_a_tenth_to_twenty(t: float):
    """log alpha_t = -(1/2) times the integral of b(s) = 0.1 + 19.9 s from 0 to t."""
    alpha, _ = continuous(np.full((1, 1), t))
    integral = (0.1 + (0.1 + 19.9 * t)) / 2 * t
    np.testing.assert_allclose(alpha, np.exp(-integral / 2), rtol=1e-4)


@settings(max_examples=30)
@given(STEPS, st.floats(0.001, 1))
def test_both_schedules_preserve_the_variance_and_add_noise_with_time(steps: int, t: float):
    alpha, sigma = map(np.asarray, discrete(np.arange(steps)[:, None], steps))
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-5)
    assert np.all(np.diff(sigma[:, 0]) > 0)
    np.testing.assert_allclose(alpha[-1] ** 2, np.exp(-(0.1 + 9.9 / 2)), rtol=1e-4)
    alpha, sigma = map(np.asarray, continuous(np.array([[t / 2], [t]])))
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-5)
    assert 0 < sigma[0, 0] < sigma[1, 0]


def test_every_level_is_drawn_as_often():
    levels = np.asarray(once(draw_levels, static_argnums=(1, 2))(jax.random.key(0), 5000, 5))
    assert levels.shape == (5000, 1)
    shares = [(levels == level).mean() for level in range(5)]
    np.testing.assert_allclose(shares, 0.2, atol=0.03)


# Loss and dropout ------------------------------------------------------------------------------


def test_the_loss_is_the_squared_error_of_the_noise_summed_over_dimensions():
    keys = jax.random.split(jax.random.key(1), 3)
    actions, eps = jax.random.uniform(keys[0], (8, 3)), jax.random.normal(keys[1], (8, 3))
    noise = DiffusionNoise(eps, jax.random.uniform(keys[2], (8, 1)))
    scales, observations = continuous(noise.t), np.zeros((8, 1))

    def exact(s: Array, noisy: Array, t: Array, dropout: None) -> Array:
        return (noisy - scales[0] * actions) / scales[1]

    assert float(loss_of(exact, observations, actions, noise, scales)) < 1e-6
    nothing = loss_of(lambda s, x, t, d: jnp.zeros_like(x), observations, actions, noise, scales)
    np.testing.assert_allclose(nothing, np.square(eps).sum(1).mean(), rtol=1e-5)


def test_dropout_is_data_and_keeps_the_mean():
    model = once(lambda key: NoiseModel(2, 3, width=16, blocks=2, key=key))(jax.random.key(2))
    keys = jax.random.split(jax.random.key(3), 2)
    inputs = (
        jax.random.normal(keys[0], (64, 2)),
        jax.random.normal(keys[1], (64, 3)),
        np.ones((64, 1)),
    )
    masks = np.asarray(once(draw_dropout, static_argnums=2)(jax.random.key(4), 0.25, (2, 64, 16)))
    np.testing.assert_allclose(np.unique(masks), [0, 4 / 3], rtol=1e-6)
    np.testing.assert_allclose(masks.mean(), 1, atol=0.05)
    run = once(lambda *arguments: model(*arguments))
    whole = run(*inputs, None)
    np.testing.assert_allclose(run(*inputs, np.ones_like(masks)), whole, atol=1e-5)
    for block in range(2):
        dropped = np.ones_like(masks)
        dropped[block] = masks[block]
        assert not np.allclose(run(*inputs, dropped), whole, atol=1e-2)


# Sampler ---------------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=0)
def drawn_of_one(steps: int, action: Array, noise: Array) -> Array:
    """Samples where the data are a single action."""

    def exact(s: Array, noisy: Array, t: Array) -> Array:
        alpha, sigma = discrete_scales(t, steps)
        return (noisy - alpha * action) / sigma

    return denoise(exact, jnp.zeros((3, 1, 1)), noise)


@settings(max_examples=20)
@given(st.sampled_from([1, 5]), st.floats(-0.9, 0.9), st.integers(0, 2**31 - 1))
def test_the_sampler_returns_the_only_action_there_is(steps: int, action: float, seed: int):
    """Whatever the noise: after the last step none is added."""
    noise = np.random.default_rng(seed).normal(size=(3, 4, steps, 2))
    drawn = drawn_of_one(steps, action, noise)
    assert drawn.shape == (3, 4, 2)
    np.testing.assert_allclose(drawn, action, atol=1e-4)


def test_every_step_follows_the_recursion_and_is_cut_to_the_box():
    """The sampler of Ho et al., algorithm 2, written out in numpy, with observations at work."""
    steps, rng = 5, np.random.default_rng(0)
    noise, observations = rng.normal(size=(6, steps, 2)), rng.normal(size=(6, 2))
    beta = np.asarray(rates(steps), np.float64)
    left = np.cumprod(1 - beta)
    x, cut = noise[:, 0], 0
    for i, level in enumerate(reversed(range(steps))):
        eps = 0.3 * x + 0.5 * observations + 0.1 * level
        x = (x - beta[level] / np.sqrt(1 - left[level]) * eps) / np.sqrt(1 - beta[level])
        if level > 0:
            x = x + np.sqrt(beta[level]) * noise[:, i + 1]
        cut += (np.abs(x) > 1).sum() if level > 0 else 0
        x = np.clip(x, -1, 1)
    assert cut > 0
    model = lambda s, a, t: 0.3 * a + 0.5 * s + 0.1 * t  # noqa: E731
    found = once(denoise, static_argnums=0)(model, observations, noise)
    np.testing.assert_allclose(found, x, atol=1e-5)


# Training --------------------------------------------------------------------------------------

SHARE, CENTRE, SPREAD = 0.3, 0.8, 0.05


def two_modes(s: Array, noisy: Array, t: Array) -> Array:
    """The exact noise where the data are a mixture of N(+-centre, spread^2)."""
    alpha, sigma = discrete_scales(t, 5)
    variance = (alpha * SPREAD) ** 2 + sigma**2
    odds = jnp.log((1 - SHARE) / SHARE) + 2 * alpha * CENTRE * noisy / variance
    centre = CENTRE * jnp.tanh(odds / 2)
    return sigma * (noisy - alpha * centre) / variance


@pytest.fixture(scope="module")
def samples() -> tuple[np.ndarray, np.ndarray]:
    """[3 seeds, samples]: of three small diffusions, and of the exact one from the same noise."""
    rule = optax.adam(optax.cosine_decay_schedule(4e-3, 2000))
    nothing = jnp.zeros((256, 1))

    def update(learner: Learner[NoiseModel], key: Array) -> tuple[Learner[NoiseModel], None]:
        keys = jax.random.split(key, 4)
        left = jax.random.uniform(keys[0], (256, 1)) < SHARE
        actions = jnp.where(left, -CENTRE, CENTRE) + SPREAD * jax.random.normal(keys[1], (256, 1))
        noise = DiffusionNoise(jax.random.normal(keys[2], (256, 1)), draw_levels(keys[3], 256, 5))
        scales = discrete_scales(noise.t, 5)
        grads = jax.grad(noise_loss)(learner.model, nothing, actions, noise, scales)
        return learner.step(grads, rule), None

    @jax.jit
    @jax.vmap
    def trained(key: Array) -> tuple[Array, Array]:
        net_key, train_key, test_key = jax.random.split(key, 3)
        learner = Learner.create(NoiseModel(1, 1, width=32, blocks=1, key=net_key), rule)
        learner, _ = jax.lax.scan(update, learner, jax.random.split(train_key, 2000))
        noise = jax.random.normal(test_key, (2048, 5, 1))

        def drawn(model: Callable[..., Array]) -> Array:
            return denoise(model, jnp.zeros((2048, 1)), noise)[:, 0]

        return drawn(learner.model), drawn(two_modes)

    found, exact = trained(jax.random.split(jax.random.key(0), 3))
    return np.asarray(found), np.asarray(exact)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_small_diffusion_reproduces_both_modes_and_their_shares(samples, seed: int):
    found, exact = samples[0][seed], samples[1][seed]
    assert abs((found < 0).mean() - (exact < 0).mean()) < 0.05
    assert abs((found < 0).mean() - SHARE) < 0.08
    for sign in (-1, 1):
        mine, best = (np.median(drawn[np.sign(drawn) == sign]) for drawn in (found, exact))
        assert abs(mine - sign * CENTRE) < 0.12  # five levels smear even the exact model's modes
        assert abs(mine - best) < 0.06
    assert np.median(np.abs(found - exact)) < 0.05


def test_a_noisy_action_is_a_mixture_by_the_scales():
    scales = (np.array([[0.6]]), np.array([[0.8]]))
    noisy = once(perturb)(np.array([[0.5, -1.0]]), np.array([[1.0, 2.0]]), scales)
    np.testing.assert_allclose(noisy, [[1.1, 1.0]], rtol=1e-6)
