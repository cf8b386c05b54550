"""SRPO's surrogate gradient by hand, and where it comes to rest."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Array
from tests.compiled import once

from deflow.behavior.diffusion import continuous_scales
from deflow.extraction.score import ScoreWeight, surrogate_loss

scales_of = once(continuous_scales)

WEIGHTS: tuple[ScoreWeight, ...] = ("vds", "stable", "score")


def gradient(actions: Array, *arguments: Any, **options: Any) -> Array:
    """Of the batch's summed loss, for a policy that is a table of actions."""

    def loss(table: Array) -> Array:
        return len(table) * surrogate_loss(lambda s: table, *arguments, **options)[0]

    return jax.grad(loss)(actions)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_the_gradient_is_the_weighted_noise_less_betas_share_of_qs_gradient(
    weight: ScoreWeight, baseline: bool, normalize: bool
):
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    observations, actions, z, slope = draw(6, 2), 0.5 * draw(6, 3), draw(6, 3), draw(2, 3)
    alpha, sigma = map(np.asarray, scales_of(rng.uniform(0.1, 0.9, (6, 1))))

    eps_and_value = (
        lambda s, x: jnp.sin(x) + s[:, :1],
        lambda s, a: jnp.sum((s @ slope) * a - a**2, axis=-1),
    )
    options = {"weight": weight, "baseline": baseline, "normalize_guidance": normalize}
    found = once(lambda actions, *noise: gradient(actions, *eps_and_value, *noise, **options))(
        actions, observations, z, (alpha, sigma), 0.7
    )

    w = {"vds": sigma**2, "stable": np.ones_like(sigma), "score": alpha / sigma}[weight]
    eps = np.sin(alpha * actions + sigma * z) + observations[:, :1]
    guidance = observations @ slope - 2 * actions
    if baseline:
        eps = eps - z
    if normalize:
        guidance = guidance / np.sqrt(np.square(guidance).mean(1, keepdims=True))
    np.testing.assert_allclose(found, w * eps - 0.7 * guidance, rtol=1e-4, atol=1e-5)


SCALES = tuple(map(np.asarray, scales_of(np.repeat(np.linspace(0.02, 0.98, 64), 2)[:, None])))
NOISE = np.tile([[1.3], [-1.3]], (64, 1))
"""Of mean zero at every time."""


@partial(once, static_argnums=(0, 1))
def on_a_gaussian(
    weight: ScoreWeight,
    baseline: bool,
    action: Array,
    mean: Array,
    spread: Array,
    slope: Array,
    beta: Array,
) -> Array:
    """The mean gradient at an action, where the data are N(mean, spread^2) and Q is linear."""
    alpha, sigma = SCALES
    return gradient(
        jnp.full((128, 1), action),
        lambda s, x: sigma * (x - alpha * mean) / ((alpha * spread) ** 2 + sigma**2),
        lambda s, a: slope * a[:, 0],
        jnp.zeros((128, 1)),
        NOISE,
        SCALES,
        beta,
        weight=weight,
        baseline=baseline,
    ).mean()


@settings(max_examples=30)
@given(
    mean=st.floats(-0.8, 0.8),
    spread=st.floats(0.05, 1),
    slope=st.floats(-2, 2),
    beta=st.floats(0, 1),
    weight=st.sampled_from(WEIGHTS),
    baseline=st.booleans(),
)
def test_on_a_gaussian_behaviour_the_policy_rests_where_the_two_pulls_are_equal(
    mean: float, spread: float, slope: float, beta: float, weight: ScoreWeight, baseline: bool
):
    """eps = sigma (a_t - alpha m) / v with v = alpha^2 s^2 + sigma^2, so that on average the pull
    towards the data is c (a - m), c = E w sigma alpha / v, and the rest lies at m + beta g / c."""
    alpha, sigma = SCALES
    variance = (alpha * spread) ** 2 + sigma**2
    w = {"vds": sigma**2, "stable": np.ones_like(sigma), "score": alpha / sigma}[weight]
    pull = float((w * sigma * alpha / variance).mean())

    def mean_gradient(action: float) -> float:
        return float(on_a_gaussian(weight, baseline, action, mean, spread, slope, beta))

    rest = mean + beta * slope / pull
    scale = max(1.0, abs(rest)) * pull
    assert abs(mean_gradient(rest)) < 1e-3 * scale
    np.testing.assert_allclose(mean_gradient(rest + 0.5), 0.5 * pull, atol=1e-3 * scale)
    np.testing.assert_allclose(mean_gradient(mean), -beta * slope, atol=1e-3 * scale)


def test_normalised_guidance_knows_no_scale_and_bears_a_flat_value():
    z, scales = jnp.zeros((2, 2)), (jnp.ones((2, 1)), jnp.ones((2, 1)))

    @once
    def found(scale: float) -> Array:
        return gradient(
            jnp.zeros((2, 2)),
            lambda s, x: jnp.zeros_like(x),
            lambda s, a: scale * (3 * a[:, 0] - 4 * a[:, 1]),
            jnp.zeros((2, 1)),
            z,
            scales,
            1.0,
            normalize_guidance=True,
        )

    expected = -np.array([3, -4]) / np.sqrt(12.5) * np.ones((2, 1))
    np.testing.assert_allclose(found(1.0), expected, rtol=1e-5)
    np.testing.assert_allclose(found(1e3), expected, rtol=1e-5)
    np.testing.assert_array_equal(found(0.0), 0)


def test_the_metrics_report_the_values_mean():
    _, metrics = once(surrogate_loss, static_argnums=(0, 1, 2))(
        lambda s: jnp.full((4, 1), 0.5),
        lambda s, x: jnp.full_like(x, 2.0),
        lambda s, a: 3 * a[:, 0],
        np.zeros((4, 1)),
        np.zeros((4, 1)),
        (np.ones((4, 1)), np.ones((4, 1))),
        0.1,
    )
    assert {name: round(float(value), 5) for name, value in metrics.items()} == {
        "actor/loss": (2 - 0.1 * 3) * 0.5,
        "actor/q": 1.5,
        "actor/score_norm": 2.0,
        "actor/guidance_norm": 3.0,
    }
