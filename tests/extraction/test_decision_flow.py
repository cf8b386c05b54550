"""Decision Flow's values and losses, on flows and values that are known."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Array
from tests.compiled import once

from deflow.extraction.decision_flow import (
    FlowStates,
    StatesNoise,
    at_step,
    direction_loss,
    divergence_loss,
    draw_states,
    flow_states,
    path_returns,
    returns_to_go,
    rollout,
    step_return,
    unit,
    value_ahead,
)

STEPS, BATCH = 5, 3
SEEDS = range(3)
counts = st.integers(1, 7)
numbers = st.floats(-2, 2)

draw = once(draw_states, static_argnums=(1, 2))
to_go_of = once(returns_to_go)


def steady(velocity: Array | float) -> object:
    """A field that is the same everywhere."""
    return lambda s, x, t: jnp.broadcast_to(jnp.asarray(velocity), x.shape)


@once
def states_at(step: list[int], x: Array, u: Array | None = None) -> FlowStates:
    """Flow states at given steps and places, of a policy that stands still."""
    index, rows = jnp.asarray(step), len(step)
    path = jnp.broadcast_to(x, (STEPS + 1, *x.shape))
    still = jnp.zeros((STEPS, *x.shape))
    velocities = still if u is None else jnp.broadcast_to(u, still.shape)
    times = index[:, None] / STEPS
    own = still[0] if u is None else u
    return FlowStates(jnp.zeros((rows, 1)), index, times, x, own, path, velocities)


# Paths -----------------------------------------------------------------------------------------


@partial(once, static_argnums=2)
def steady_path(velocity: Array, first: Array, steps: int) -> tuple[Array, Array]:
    start = jnp.full((2, 2), 0.3)
    return rollout(steady(velocity), start, start, jnp.full(2, first), steps)


@settings(max_examples=20)
@given(counts, numbers, st.data())
def test_a_path_stands_still_until_its_first_step(steps: int, velocity: float, data: st.DataObject):
    first = data.draw(st.integers(0, steps))
    path, velocities = map(np.asarray, steady_path(velocity, first, steps))
    moved = np.maximum(np.arange(steps + 1) - first, 0) / steps
    np.testing.assert_allclose(path[:, 0, 0], 0.3 + velocity * moved, atol=1e-5)
    np.testing.assert_allclose(velocities, velocity, atol=1e-6)


def test_the_policy_sees_the_time_of_each_step():
    """Velocities t add up to sum over i of i / T^2."""
    start = np.zeros((2, 1))
    field = lambda s, x, t: jnp.broadcast_to(t, x.shape)  # noqa: E731
    rolled = once(rollout, static_argnums=(0, 4))
    path = np.asarray(rolled(field, start, start, np.zeros(2, int), STEPS)[0])
    np.testing.assert_allclose(path[:, 0, 0], np.array([0, 0, 1, 3, 6, 10]) / STEPS**2, atol=1e-6)


@once
def half_and_half(
    observations: Array, noise: StatesNoise, on_path: Array, data_u: Array
) -> FlowStates:
    return flow_states(steady(2.0), observations, noise, on_path, data_u, STEPS)


@pytest.mark.parametrize("seed", SEEDS)
def test_half_the_states_are_the_policys_and_half_the_datas(seed: int):
    noise = draw(jax.random.key(seed), (BATCH, 2), STEPS)
    on_path, data_u = np.full((BATCH, 2), 0.5), np.full((BATCH, 2), 7.0)
    observations = np.arange(3.0)[:, None]
    found = jax.tree.map(np.asarray, half_and_half(observations, noise, on_path, data_u))
    own = np.asarray(noise.x0) + 2.0 * np.asarray(noise.step)[:, None] / STEPS
    np.testing.assert_allclose(found.x, np.concatenate([own, on_path]), atol=1e-5)
    np.testing.assert_allclose(found.u[:, 0], [2, 2, 2, 7, 7, 7])
    left = 2.0 * (1 - np.asarray(noise.data_step)[:, None] / STEPS)
    ends = np.concatenate([np.asarray(noise.x0) + 2.0, 0.5 + left * np.ones((1, 2))])
    np.testing.assert_allclose(found.path[-1], ends, atol=1e-5)
    np.testing.assert_array_equal(found.observations[:, 0], [0, 1, 2, 0, 1, 2])


def test_steps_are_drawn_from_the_first_to_the_last():
    noise = draw(jax.random.key(0), (256, 2), STEPS)
    assert set(np.asarray(noise.step)) == set(np.asarray(noise.data_step)) == set(range(STEPS))
    assert not np.array_equal(noise.step, noise.data_step)
    assert not np.array_equal(noise.x0, noise.data_x0)


# Returns ---------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(counts, st.integers(0, 2**31 - 1))
def test_returns_telescope(steps: int, seed: int):
    rng = np.random.default_rng(seed)
    rewards, terminal = rng.normal(size=(steps, 4)), rng.normal(size=4)
    to_go = np.asarray(to_go_of(rewards, terminal))
    np.testing.assert_allclose(to_go[:-1] - to_go[1:], rewards, atol=1e-5)
    np.testing.assert_allclose(to_go[-1], terminal, atol=1e-6)


@once
def steady_returns(states: FlowStates, behavior: Array, rho: Array) -> Array:
    return path_returns(states, steady(behavior), lambda end: end.sum(-1), rho)


@settings(max_examples=20)
@given(st.lists(st.integers(0, STEPS - 1), min_size=2, max_size=2), st.floats(0, 5), numbers)
def test_a_steady_difference_costs_its_square_for_the_time_that_is_left(
    step: list[int], rho: float, gap: float
):
    """|u - u_v|^2 = gap^2 in each dimension, so V^chi(t) = Q - rho gap^2 (1 - t)."""
    x = np.array([[0.1, 0.2], [0.3, -0.4]])
    states = states_at(step, x, np.full((2, 2), 0.5))
    found = steady_returns(states, 0.5 - gap, rho)
    left = 1 - np.asarray(step) / STEPS
    np.testing.assert_allclose(found, x.sum(-1) - rho * gap**2 * left, atol=1e-4)


@once
def behaviours_own(noise: StatesNoise) -> tuple[FlowStates, Array]:
    field = lambda s, x, t: jnp.sin(3 * x) + t  # noqa: E731
    states = flow_states(field, jnp.zeros((3, 1)), noise, noise.data_x0, noise.x0, STEPS)
    return states, path_returns(states, field, lambda end: end.sum(-1), 10.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_behaviours_own_paths_earn_their_end_alone(seed: int):
    states, found = behaviours_own(draw(jax.random.key(seed), (BATCH, 2), STEPS))
    np.testing.assert_allclose(found, np.asarray(states.path)[-1].sum(-1), atol=1e-5)


def test_one_step_ahead_the_last_state_earns_the_terminal_reward():
    states = states_at([0, STEPS - 2, STEPS - 1], np.zeros((3, 1)))
    found = once(value_ahead, static_argnums=(2, 3))(
        states, np.ones((3, 1)), lambda x, t: t[:, 0], lambda x: 10 * x[:, 0]
    )
    np.testing.assert_allclose(found, [1 / STEPS, (STEPS - 1) / STEPS, 10])


def test_a_velocity_is_worth_its_penalty_and_what_it_leads_to():
    """-rho |u - u_v|^2 dt + V(x + u dt, t + dt), at the last step + Q(x + u dt)."""
    x, u = np.array([[0.1, 0.2], [0.3, 0.4]]), np.array([[1.0, 2.0], [-1.0, 0.5]])
    states = states_at([1, STEPS - 1], x, u)
    found = once(step_return, static_argnums=(1, 2, 3))(
        states, steady(0.5), lambda x, t: x[:, 0] + t[:, 0], lambda x: 100 * x[:, 1], rho=2.0
    )
    penalty = 2.0 / STEPS * np.array([(0.25 + 2.25) / 2, (2.25 + 0) / 2])
    expected = np.array([0.1 + 1 / STEPS + 2 / STEPS, 100 * (0.4 + 0.5 / STEPS)]) - penalty
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@once
def whole_path_and_single_steps(noise: StatesNoise) -> tuple[Array, Array]:
    policy = lambda s, x, t: jnp.cos(2 * x) - t  # noqa: E731
    behavior = lambda s, x, t: jnp.sin(x) + t  # noqa: E731
    end = lambda x: jnp.square(x).sum(-1)  # noqa: E731
    states = flow_states(policy, jnp.zeros((3, 1)), noise, noise.data_x0, noise.x0, STEPS)
    own = states._replace(u=at_step(states.velocities, states.step))
    after = states._replace(step=jnp.minimum(states.step + 1, STEPS - 1))
    ahead = path_returns(after, behavior, end, 0.7)
    single = step_return(own, behavior, lambda x, t: ahead, end, 0.7)
    return path_returns(states, behavior, end, 0.7), single


@settings(max_examples=20)
@given(st.integers(0, 2**31 - 1))
def test_a_path_of_single_steps_is_worth_the_whole_path(seed: int):
    """V^chi(t) = Q^f(t, u_theta) for the exact V^chi: Bellman's equation of the flow."""
    noise = draw(jax.random.key(seed), (BATCH, 2), STEPS)
    exact, found = whole_path_and_single_steps(noise)
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)


# Losses ----------------------------------------------------------------------------------------


@once
def draw_three(seed: int) -> tuple[Array, ...]:
    keys = jax.random.split(jax.random.key(seed), 3)
    return tuple(jax.random.normal(key, (BATCH, 4)) for key in keys)


def steer(seed: int) -> tuple[FlowStates, np.ndarray, np.ndarray]:
    """States, velocities and the gradient of a linear value."""
    x, u, slope = map(np.asarray, draw_three(seed))
    return states_at([0, 2, STEPS - 1], x), u, slope


@partial(once, static_argnames="normalize")
def dir_gradient(u: Array, states: FlowStates, slope: Array, rho: float, normalize: bool) -> Array:
    def loss(u: Array) -> Array:
        value = lambda x: 3.0 + (x * slope).sum(-1)  # noqa: E731
        return direction_loss(
            lambda s, x, t: u, value, states, steady(0.2), rho, normalize=normalize
        )[0]

    return jax.grad(loss)(u)


direction = once(unit)


def cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (np.asarray(direction(one)) * np.asarray(direction(other))).sum(-1)


@pytest.mark.parametrize("seed", SEEDS)
def test_only_the_direction_is_steered_and_towards_the_values_gradient(seed: int):
    """By hand: -dt (I - u^ u^T) grad V / B, since the length h = |u| dt is a constant."""
    states, u, slope = steer(seed)
    found = np.asarray(dir_gradient(u, states, slope, rho=0.0, normalize=False))
    hat = np.asarray(direction(u))
    across = slope - hat * (hat * slope).sum(-1, keepdims=True)
    np.testing.assert_allclose(found, -across / STEPS / BATCH, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose((found * u).sum(-1), 0, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_gradient_vanishes_only_where_the_velocity_is_parallel_to_it(seed: int):
    states, u, slope = steer(seed)
    for sign in (1.0, -1.0):
        still = dir_gradient(sign * 0.3 * slope, states, slope, rho=0.0, normalize=False)
        np.testing.assert_allclose(still, 0, atol=1e-6)
    assert np.abs(dir_gradient(u, states, slope, rho=0.0, normalize=False)).max() > 1e-2


@pytest.mark.parametrize("seed", SEEDS)
def test_descent_turns_the_velocity_to_the_values_gradient(seed: int):
    states, u, slope = steer(seed)
    before, turned = cosine(u, slope), u
    for _ in range(300):
        gradient = dir_gradient(turned, states, slope, rho=0.0, normalize=False)
        turned = turned - 5.0 * np.asarray(gradient)
    assert cosine(turned, slope).min() > 0.999 > before.min()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_tie_to_the_behaviour_is_a_mean_over_dimensions(seed: int):
    states, u, slope = steer(seed)
    free, tied = (
        np.asarray(dir_gradient(u, states, slope, rho=rho, normalize=False)) for rho in (0.0, 0.5)
    )
    expected = 0.5 * 2 * (u - 0.2) / 4 / BATCH
    np.testing.assert_allclose(tied - free, expected, rtol=1e-3, atol=1e-6)


def test_the_value_is_measured_in_units_of_its_mean_size():
    states, u, slope = steer(0)
    length = np.linalg.norm(u, axis=-1, keepdims=True)
    ahead = np.asarray(states.x) + length / STEPS * np.asarray(direction(u))
    size = np.abs(3 + (ahead * slope).sum(-1)).mean()
    raw, normal = (
        np.asarray(dir_gradient(u, states, slope, rho=0.0, normalize=flag))
        for flag in (False, True)
    )
    np.testing.assert_allclose(normal, raw / size, rtol=1e-3, atol=1e-7)


def test_a_velocity_of_zero_has_a_finite_gradient():
    states, u, slope = steer(0)
    gradient = dir_gradient(np.zeros_like(u), states, slope, rho=0.1, normalize=True)
    assert np.isfinite(gradient).all()


@once
def div_gradient(u: Array, states: FlowStates, slope: Array) -> Array:
    def loss(u: Array) -> Array:
        critic = lambda u: (u * slope).sum(-1)  # noqa: E731
        return divergence_loss(lambda s, x, t: u, critic, states, steady(0.2), 0.5)[0]

    return jax.grad(loss)(u)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_divergence_loss_climbs_the_flows_critic_and_stays_by_the_behaviour(seed: int):
    states, u, slope = steer(seed)
    expected = (-slope + 0.5 * 2 * (u - 0.2) / 4) / BATCH
    np.testing.assert_allclose(div_gradient(u, states, slope), expected, rtol=1e-4, atol=1e-6)
