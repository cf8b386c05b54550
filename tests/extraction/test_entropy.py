"""The price of entropy: which way it moves, where it comes to rest, and what the actor pays."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deflow.behavior.squashed import Squashed
from deflow.extraction.entropy import entropy_loss
from deflow.extraction.multiplier import multiplier_loss

NUMBERS = st.floats(-5, 5)


@pytest.mark.parametrize("form", ["linear", "log"])
@given(log_alpha=st.floats(-3, 3), entropy=NUMBERS, target=NUMBERS)
def test_too_little_entropy_raises_the_temperature(
    form: Any, log_alpha: float, entropy: float, target: float
):
    slope = float(jax.grad(multiplier_loss)(log_alpha, -jnp.asarray(entropy), -target, form))
    pace = math.exp(log_alpha) if form == "linear" else 1.0
    assert slope == pytest.approx(pace * (entropy - target), rel=1e-4, abs=1e-4)


def test_the_actors_loss_is_the_price_of_its_density_less_the_value():
    policy = Squashed(2, 1, (8,), key=jax.random.key(0))
    observations = jax.random.normal(jax.random.key(1), (6, 2))
    noise = jax.random.normal(jax.random.key(2), (6, 1))
    actions, log_probs = policy.sample(observations, noise)
    value = lambda observations, actions: 3 * actions[..., 0]  # noqa: E731
    loss, metrics = entropy_loss(policy, value, observations, noise, 0.7)
    expected = float(jnp.mean(0.7 * log_probs - 3 * actions[:, 0]))
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["actor/entropy"]) == pytest.approx(-float(log_probs.mean()), rel=1e-5)


@pytest.mark.parametrize("form", ["linear", "log"])
def test_the_temperature_brings_the_entropy_to_its_target(form: Any):
    """On Q = -9 (a - 0.2)^2, where the best policy has no entropy at all and an actor that is paid
    nothing but entropy has log 2."""
    target, steps, count = -0.5, 3000, 128
    rule = optax.adam(3e-3)
    policy = Squashed(1, 1, (8,), key=jax.random.key(0))
    value = lambda observations, actions: -9 * jnp.square(actions[..., 0] - 0.2)  # noqa: E731
    start = (policy, jnp.asarray(0.0))
    moments = rule.init(eqx.filter(start, eqx.is_array))

    def step(carry: Any, key: Any) -> Any:
        arrays, moments = carry
        policy, log_alpha = eqx.combine(arrays, static)
        noise = jax.random.normal(key, (count, 1))
        actor, metrics = eqx.filter_grad(entropy_loss, has_aux=True)(
            policy, value, jnp.zeros((count, 1)), noise, jnp.exp(log_alpha)
        )
        slope = jax.grad(multiplier_loss)(log_alpha, -metrics["actor/entropy"], -target, form)
        updates, moments = rule.update((actor, slope), moments)
        arrays = eqx.apply_updates(arrays, updates)
        return (arrays, moments), (metrics["actor/entropy"], jnp.exp(log_alpha))

    arrays, static = eqx.partition(start, eqx.is_array)
    keys = jax.random.split(jax.random.key(5), steps)
    _, (entropy, alpha) = jax.jit(lambda: jax.lax.scan(step, (arrays, moments), keys))()
    assert float(entropy[0]) > 0
    late = np.asarray(entropy[-500:]).mean()
    assert late == pytest.approx(target, abs=0.05)
    # At rest in u = a: alpha / (2 sigma^2) = 9, and H = log(sigma sqrt(2 pi e)); tanh bends little.
    sigma = math.exp(target) / math.sqrt(2 * math.pi * math.e)
    assert float(alpha[-500:].mean()) == pytest.approx(18 * sigma**2, rel=0.1)
