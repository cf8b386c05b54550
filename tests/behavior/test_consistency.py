"""The consistency model against closed forms, and a small one trained on two modes."""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Array
from tests.compiled import once

from deflow.behavior.consistency import (
    EPSILON,
    MOST,
    TOP,
    ConsistencyModel,
    ConsistencyNoise,
    consistency_loss,
    draw_consistency,
    level,
    level_count,
    neighbours,
    sample_actions,
)
from deflow.nn.learner import Learner, polyak

OBS = np.zeros((4, 1))

consistent = once(lambda model, *inputs: model(*inputs))
levels = once(lambda count: level(jnp.arange(MOST), count))
"""Only the first `count` mean anything: one program serves every count."""
neighbours_of = once(neighbours)
loss_of = once(consistency_loss, static_argnames="scaled")
sampled = once(sample_actions)


@partial(once, static_argnames="actions")
def model(seed: int, actions: int = 2) -> ConsistencyModel:
    return ConsistencyModel(1, actions, (16, 16), key=jax.random.key(seed))


def constant(value: float, actions: int = 2) -> ConsistencyModel:
    """A model whose network F is the same number everywhere."""
    last = lambda m: (m.net.layers[-1].weight, m.net.layers[-1].bias)  # noqa: E731
    made = model(0, actions)
    weight, bias = last(made)
    return eqx.tree_at(last, made, (np.zeros_like(weight), np.full_like(bias, value)))


def skip(t: Any) -> Any:
    return 0.25 / ((t - 0.002) ** 2 + 0.25)


def out(t: Any) -> Any:
    return 0.5 * (t - 0.002) / np.sqrt(t**2 + 0.25)


# The model -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_on_the_lowest_level_an_action_is_its_own_origin(seed: int):
    x = jax.random.uniform(jax.random.key(seed), (4, 2), minval=-1)
    found = consistent(model(seed), OBS, x, np.full((4, 1), EPSILON))
    np.testing.assert_allclose(found, x, atol=1e-6)
    above = consistent(model(seed), OBS, x, np.ones((4, 1)))
    assert np.abs(np.asarray(above) - np.asarray(x)).max() > 0.1


@pytest.mark.parametrize("t", [0.01, 0.5, 2.0, 80.0])
def test_the_skip_and_the_output_are_weighed_by_the_level(t: float):
    x = np.array([[0.3, -2.0]])
    found = consistent(constant(0.7), OBS[:1], x, np.full((1, 1), t))
    np.testing.assert_allclose(found, skip(t) * x + out(t) * 0.7, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_the_model_sees_its_state_and_its_level(seed: int):
    x, low, high = np.ones((4, 2)), np.full((4, 1), 1.0), np.full((4, 1), 1.5)

    def raw(s: np.ndarray, t: np.ndarray) -> np.ndarray:
        return (np.asarray(consistent(model(seed), s, x, t)) - skip(t) * x) / out(t)

    assert np.abs(raw(OBS, low) - raw(OBS + 1, low)).max() > 1e-3
    assert np.abs(raw(OBS, low) - raw(OBS, high)).max() > 1e-3


# Levels and their curriculum -------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 18, 150])
def test_levels_run_from_the_lowest_to_the_highest(count: int):
    index = np.arange(count)
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    expected = (low + index / (count - 1) * (high - low)) ** 7
    found = np.asarray(levels(count))[:count]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(found[[0, -1]], [EPSILON, TOP], rtol=1e-5)


@pytest.mark.parametrize(
    ("step", "count"),
    # By hand for K = 1000: 22496 k / 1000 + 4 is 4, 26.5, 5628, 11252, 22477.5; its roots are
    # 2, 5.15, 75.02, 106.08, 149.93.
    [(0, 2), (1, 6), (250, 76), (500, 107), (999, 150), (1000, 2), (1250, 76)],
)
def test_the_curriculum_by_hand(step: int, count: int):
    assert int(once(level_count, static_argnums=1)(step, 1000)) == count


def test_the_curriculum_never_falls_before_it_begins_anew():
    counts = np.asarray(once(jax.vmap(lambda k: level_count(k, 997)))(np.arange(997)))
    assert (np.diff(counts) >= 0).all()
    assert (counts[0], counts[-1]) == (2, 150)


@settings(max_examples=30)
@given(st.integers(2, 150), st.floats(0, 1, exclude_max=True, width=32))
def test_neighbouring_levels_stand_side_by_side(count: int, uniform: float):
    t1, t2 = map(np.asarray, neighbours_of(np.full((1, 1), uniform), count))
    each = np.asarray(levels(count))[:count]
    index = int(np.argmin(np.abs(each - t1[0, 0])))
    assert index <= count - 2
    np.testing.assert_allclose([t1[0, 0], t2[0, 0]], each[index : index + 2], rtol=1e-4)


def test_each_pair_of_levels_is_as_likely_as_any_other():
    uniform = (np.arange(1490)[:, None] + 0.5) / 1490
    t1, _ = neighbours_of(uniform, 150)
    _, counts = np.unique(np.asarray(t1), return_counts=True)
    assert len(counts) == 149
    assert (counts == 10).all()


# The loss --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_compares_two_levels_of_one_noise(seed: int, scaled: bool):
    rng = np.random.default_rng(seed)
    actions, z, u = rng.uniform(-1, 1, (4, 2)), rng.normal(size=(4, 2)), rng.uniform(size=(4, 1))
    each = np.asarray(levels(10), np.float64)
    index = np.floor(u * 9).astype(int)
    t1, t2 = each[index], each[index + 1]
    ahead = skip(t2) * (actions + t2 * z) + out(t2) * 0.4
    behind = skip(t1) * (actions + t1 * z) + out(t1) * -0.2
    weight = 100 / (t2 - t1) if scaled else 1.0
    noise = ConsistencyNoise(z, u)
    found = loss_of(constant(0.4), constant(-0.2), OBS, actions, noise, 10, scaled=scaled)
    np.testing.assert_allclose(found, (weight * (ahead - behind) ** 2).mean(), rtol=1e-4)


def test_the_teacher_takes_no_gradient():
    noise = once(draw_consistency, static_argnums=1)(jax.random.key(0), (4, 2))
    loss = lambda m, t: consistency_loss(m, t, OBS, np.zeros((4, 2)), noise, 10)  # noqa: E731
    own, teachers = once(jax.grad(loss, argnums=(0, 1)))(model(0), model(1))
    size = lambda tree: sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(tree))  # noqa: E731
    assert size(own) > 0
    assert size(teachers) == 0


# Sampling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.7, -30.0])
def test_two_steps_of_sampling_by_hand(value: float):
    noise = np.random.default_rng(0).normal(size=(2, 4, 2))
    first = skip(80.0) * 80 * noise[0] + out(80.0) * value
    again = first + np.sqrt(2.0**2 - 0.002**2) * noise[1]
    expected = np.clip(skip(2.0) * again + out(2.0) * value, -1, 1)
    found = sampled(constant(value), OBS, noise)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_gradient_passes_through_every_step_of_the_sampler():
    """F is b in both steps, so da/db is c_skip(2) c_out(80) + c_out(2)."""
    noise = 1e-2 * np.ones((2, 1, 1))
    total = lambda m: sample_actions(m, OBS[:1], noise).sum()  # noqa: E731
    gradient = once(jax.grad(total))(constant(0.1, actions=1)).net.layers[-1].bias
    np.testing.assert_allclose(gradient, skip(2.0) * out(80.0) + out(2.0), rtol=1e-4)


SHARE, CENTRE, SPREAD, STEPS = 0.3, 0.6, 0.05, 2500


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """[3 seeds, samples] of small models on data of two modes, after the first tenth of a ramp."""
    rule = optax.adam(optax.cosine_decay_schedule(3e-3, STEPS))

    def update(carry: Any, step_and_key: tuple[Array, Array]) -> tuple[Any, None]:
        (learner, teacher), (step, key) = carry, step_and_key
        keys = jax.random.split(key, 3)
        left = jax.random.uniform(keys[0], (512, 1)) < SHARE
        actions = jnp.where(left, -CENTRE, CENTRE) + SPREAD * jax.random.normal(keys[1], (512, 1))
        noise, count = draw_consistency(keys[2], (512, 1)), level_count(step, 10 * STEPS)
        grads = jax.grad(consistency_loss)(
            learner.model, teacher, jnp.zeros((512, 1)), actions, noise, count
        )
        learner = learner.step(grads, rule)
        return (learner, polyak(teacher, learner.model, 0.05)), None

    @jax.jit
    @jax.vmap
    def trained(key: Array) -> Array:
        net_key, train_key, test_key = jax.random.split(key, 3)
        net = ConsistencyModel(1, 1, (64, 64), key=net_key)
        steps = (jnp.arange(STEPS), jax.random.split(train_key, STEPS))
        (learner, _), _ = jax.lax.scan(update, (Learner.create(net, rule), net), steps)
        noise = jax.random.normal(test_key, (2, 2048, 1))
        return sample_actions(learner.model, jnp.zeros((2048, 1)), noise)[:, 0]

    return np.asarray(trained(jax.random.split(jax.random.key(0), 3)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_small_model_finds_both_modes(samples: np.ndarray, seed: int):
    drawn = samples[seed]
    assert abs((drawn < 0).mean() - SHARE) < 0.06
    # One Gaussian with the data's mean and deviation would have shares of 0.26 and 0.31 here.
    assert (np.abs(drawn) < 0.2).mean() < 0.18
    assert (np.abs(np.abs(drawn) - CENTRE) < 0.2).mean() > 0.55
    for sign in (-1, 1):
        assert abs(np.median(drawn[np.sign(drawn) == sign]) - sign * CENTRE) < 0.2
