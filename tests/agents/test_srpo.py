"""SRPO on a bandit of two modes whose exact scores are known: where its policy comes to rest."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from deflow.agents.srpo import SRPO, SRPOState
from deflow.behavior.diffusion import continuous_scales, discrete_scales
from deflow.core.types import Batch, Clock, Spec

CENTRE, SPREAD = 0.6, 0.05
"""Actions are as often near -0.6 as near 0.6; the reward is the action itself."""

SPEC = Spec(observation_dim=1, action_dim=1, reward_range=(-1.0, 1.0), total_steps=600)
BETAS = (0.0, 0.05, 0.1, 1.0)


def agent() -> SRPO:
    return SRPO(
        hidden=(32, 32),
        batch_size=128,
        learning_rate=3e-3,
        behavior_width=32,
        behavior_blocks=1,
        behavior_factor=4,
        average_rate=0.02,
        tau=0.05,
    )


def bandit(key: Array, size: int) -> Batch:
    mode_key, noise_key = jax.random.split(key)
    modes = jnp.where(jax.random.bernoulli(mode_key, 0.5, (size, 1)), -CENTRE, CENTRE)
    actions = modes + SPREAD * jax.random.normal(noise_key, (size, 1))
    only = jnp.ones((size, 1))  # Not 0, where every ReLU of a new network rests.
    return Batch(only, actions, actions[:, 0], jnp.zeros(size), only)


def trained(own: SRPO, state: SRPOState, key: Array, phases: tuple[int, ...]) -> SRPOState:
    """The state after some of the phases."""
    for index in phases:
        phase = own.phases(SPEC, "staged")[index]

        def update(state: SRPOState, step: Array, phase=phase, index=index):
            keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, index), step))
            batch, noise = bandit(keys[0], phase.batch_size), phase.draw(own, keys[1])
            return phase.update(own, state, batch, noise, Clock(step, index))[0], None

        state, _ = jax.lax.scan(update, state, jnp.arange(phase.steps))
    return state


@pytest.fixture(scope="module")
def prepared() -> SRPOState:
    """Three seeds before the policy's phase."""
    keys = jax.random.split(jax.random.key(0), 3)
    return jax.jit(jax.vmap(lambda key: trained(agent(), agent().init(key, SPEC), key, (0, 1))))(
        keys
    )


def rests(own: SRPO, states: SRPOState, betas: tuple[float, ...]) -> np.ndarray:
    """[3 seeds, betas]: the action of each policy after its phase; one program for all."""

    def policy(state: SRPOState, beta: Array) -> Array:
        swept = eqx.tree_at(lambda a: a.beta, own, beta)
        last = trained(swept, state, jax.random.key(7), (2,))
        return swept.act(last, jnp.ones((1, 1)), ())[0, 0]

    several = jax.vmap(jax.vmap(policy, in_axes=(None, 0)), in_axes=(0, None))
    return np.asarray(jax.jit(several)(states, jnp.asarray(betas)))


def exact_rest(beta: float, weight: str = "vds") -> float:
    """Where w(t) eps, by the exact score of the two modes, and beta times 1 are equal on average;
    the first such place on the way up from the middle, where policies begin."""
    t, z = np.linspace(0.02, 0.98, 97)[:, None], np.linspace(-4, 4, 161)
    density = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    log_alpha = -0.25 * t**2 * 19.9 - 0.05 * t
    alpha, sigma = np.exp(log_alpha), np.sqrt(1 - np.exp(2 * log_alpha))
    w = {"vds": sigma**2, "score": alpha / sigma}[weight]
    for action in np.linspace(0, 1, 1001):
        noisy, variance = alpha * action + sigma * z, (alpha * SPREAD) ** 2 + sigma**2
        centre = CENTRE * np.tanh(alpha * CENTRE * noisy / variance)
        eps = sigma * (noisy - alpha * centre) / variance
        if (w * eps * density).sum(1).mean() >= beta:
            return float(action)
    return 1.0


@pytest.fixture(scope="module")
def found(prepared: SRPOState) -> np.ndarray:
    return rests(agent(), prepared, BETAS)


@pytest.mark.parametrize("seed", range(3))
def test_the_policy_rests_where_score_and_value_are_equal(found: np.ndarray, seed: int):
    """Without Q between the modes, where `vds` leads, and up to the better one as beta grows."""
    expected = np.array([exact_rest(beta) for beta in BETAS])
    np.testing.assert_allclose(expected, [0, 0.315, 0.595, 1], atol=0.02)
    np.testing.assert_allclose(found[seed], expected, atol=0.12)
    assert np.all(np.diff(found[seed]) > 0)


@pytest.mark.parametrize("seed", range(3))
def test_weighted_as_a_score_the_policy_goes_to_the_better_mode(prepared, seed: int):
    """Low noise counts most, so that even a little Q decides between the modes."""
    own = dataclasses.replace(agent(), weight="score")
    (rest,) = rests(own, jax.tree.map(lambda leaf: leaf[seed : seed + 1], prepared), (0.1,))[0]
    assert abs(rest - exact_rest(0.1, "score")) < 0.1
    assert abs(rest - CENTRE) < 0.12


def test_the_policys_phase_moves_the_policy_alone_by_the_averaged_behaviours_score(prepared):
    """By hand: w eps - beta grad Q at pi(s), pulled back through the policy."""
    own, state = agent(), jax.tree.map(lambda leaf: leaf[0], prepared)
    batch, noise = bandit(jax.random.key(1), 128), own.draw_policy(jax.random.key(2), SPEC)
    grads, metrics = own.policy_gradients(state, batch, noise, Clock(jnp.asarray(0)))
    assert set(grads) == {"actor"}

    alpha, sigma = continuous_scales(noise.t)
    actions = state.actor.model(batch.observations)
    eps = state.average(batch.observations, alpha * actions + sigma * noise.noise, noise.t)
    q = lambda a: state.target_critic(batch.observations, a).mean(0).sum()  # noqa: E731
    direction = sigma**2 * eps - own.beta * jax.grad(q)(actions)
    _, pull_back = jax.vjp(lambda model: model(batch.observations), state.actor.model)
    (expected,) = pull_back(direction / 128)
    for one, other in zip(jax.tree.leaves(grads["actor"]), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)
    assert float(metrics["actor/q"]) == pytest.approx(float(q(actions)) / 128, rel=1e-4)


def test_times_are_continuous_or_idqls_levels():
    own = agent()
    behavior = np.asarray(own.draw_behavior(jax.random.key(0), SPEC).t)
    policy = np.asarray(own.draw_policy(jax.random.key(1), SPEC).t)
    assert 0.001 <= behavior.min() < 0.02 < 0.98 < behavior.max() < 1
    assert 0.02 <= policy.min() < 0.05 < 0.95 < policy.max() < 0.98
    np.testing.assert_array_equal(own.scales(policy), continuous_scales(policy))
    levels = dataclasses.replace(own, time="discrete")
    for t in (
        levels.draw_behavior(jax.random.key(0), SPEC).t,
        levels.draw_policy(jax.random.key(1), SPEC).t,
    ):
        np.testing.assert_array_equal(np.unique(t), range(5))
        np.testing.assert_array_equal(levels.scales(t), discrete_scales(t, 5))


def test_phases_and_rates():
    own = agent()
    phases = own.phases(SPEC, "staged")
    assert [(p.name, p.steps) for p in phases] == [
        ("behavior", 2400),
        ("value", 600),
        ("policy", 600),
    ]
    weight, gradient = jnp.asarray([2.0, -4.0]), jnp.asarray([10.0, -3.0])
    for done, left in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)):
        rule = own.rule("actor", done)
        step, _ = rule.update(gradient, rule.init(weight), weight)
        np.testing.assert_allclose(step, -3e-3 * left * np.sign(gradient), rtol=1e-4, atol=1e-9)
