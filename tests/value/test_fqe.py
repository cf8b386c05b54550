"""Fitted Q evaluation of policies whose values are known."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Array

from deflow.core.errors import DeFlowError
from deflow.core.types import Batch, Spec
from deflow.value.fqe import FQE, FittedQ, fqe_init, fqe_step, fqe_target, return_bounds
from deflow.value.td import Critic

SMALL = FQE(hidden=(32, 32), learning_rate=3e-3, batch_size=128, tau=0.05)
SEEDS = 3


@jax.jit
def fitted(data: Batch, slope: Array, shift: Array, discount: Array, bounds: Any) -> FittedQ:
    """Three seeds, stacked, after 2000 steps on the policy a = slope * sum(s) + shift."""
    spec = Spec(data.observations.shape[1], 1, (0.0, 0.0), 2000)

    def run(key: Array) -> FittedQ:
        def step(state: FittedQ, key: Array) -> tuple[FittedQ, None]:
            rows = jax.random.randint(key, (SMALL.batch_size,), 0, len(data.rewards))
            batch = jax.tree.map(lambda column: column[rows], data)
            actions = slope * batch.next_observations.sum(-1, keepdims=True) + shift
            return fqe_step(SMALL, state, batch, actions, discount, bounds)[0], None

        return jax.lax.scan(step, fqe_init(SMALL, key, spec), jax.random.split(key, 2000))[0]

    return jax.vmap(run)(jax.random.split(jax.random.key(0), SEEDS))


def values(state: FittedQ, observations: Any, actions: Any) -> np.ndarray:
    """[seeds, critics, n]."""
    return np.asarray(jax.vmap(lambda s: s.value(observations, actions))(state))


# A linear system with quadratic costs ----------------------------------------------------------

A, B, COST, DISCOUNT, GAIN = 0.95, 0.3, 0.5, 0.9, 0.3
SQUARE = (1 + COST * GAIN**2) / (1 - DISCOUNT * (A - B * GAIN) ** 2)
"""x' = A x + B a costs x^2 + COST a^2; of a = -GAIN x the value is -SQUARE x^2."""
GRID = jnp.linspace(-1, 1, 21)[:, None]
TOLERANCE = 0.17
"""Values go down to -3.1; measured errors are 0.05 to 0.11, those of the mistakes 0.43 and more."""


def linear_quadratic(masks: float, rows: int = 4000) -> Batch:
    """Transitions of random actions, which as a policy would be far worse."""
    rng = np.random.default_rng(0)
    x, a = rng.uniform(-1.3, 1.3, (rows, 1)), rng.uniform(-1, 1, (rows, 1))
    rewards = -np.square(x[:, 0]) - COST * np.square(a[:, 0])
    columns = (x, a, rewards, np.full(rows, masks), A * x + B * a)
    return Batch(*(jnp.asarray(column, jnp.float32) for column in columns))


def lq_error(discount: float = DISCOUNT, masks: float = 1.0, gain: float = GAIN) -> np.ndarray:
    """[seeds]: the greatest error of V over the grid."""
    bounds = return_bounds((-(1.3**2) - COST, 0.0), jnp.asarray(discount))
    found = fitted(linear_quadratic(masks), -gain, 0.0, discount, bounds)
    v = values(found, GRID, -gain * GRID).mean(1)
    return np.abs(v + SQUARE * np.square(GRID[:, 0])).max(-1)


def test_the_value_of_a_linear_policy_is_recovered():
    assert lq_error().max() < TOLERANCE


@pytest.mark.parametrize(
    "mistake", [{"discount": 0.8}, {"discount": 0.95}, {"masks": 0.0}, {"gain": 0.0}], ids=str
)
def test_another_discount_mask_or_policy_has_another_value(mistake: dict[str, float]):
    assert lq_error(**mistake).min() > 2 * TOLERANCE


# A chain that ends -----------------------------------------------------------------------------

CHAIN = np.array([0.5 * (1 + 0.9 + 0.81), 0.5 * (1 + 0.9), 0.5])
"""Of always a = 0.5 in three states in a row, each paying the action; then the end."""


def chain(masks: tuple[float, float, float]) -> Batch:
    """Random actions, whose own mean value is 0. After the last state stands the first one, so that
    only the mask keeps its value out."""
    rng = np.random.default_rng(0)
    state = rng.integers(0, 3, 3000)
    actions = rng.uniform(-1, 1, (3000, 1))
    eye = np.eye(3)
    columns = (eye[state], actions, actions[:, 0], np.asarray(masks)[state], eye[(state + 1) % 3])
    return Batch(*(jnp.asarray(column, jnp.float32) for column in columns))


def chain_error(masks: tuple[float, float, float], discount: float = 0.9) -> np.ndarray:
    bounds = return_bounds((-1.0, 1.0), jnp.asarray(discount))
    found = fitted(chain(masks), 0.0, 0.5, discount, bounds)
    return np.abs(values(found, jnp.eye(3), jnp.full((3, 1), 0.5)).mean(1) - CHAIN).max(-1)


@pytest.mark.slow
def test_the_value_of_a_fixed_policy_on_a_chain_is_recovered():
    assert chain_error((1, 1, 0)).max() < 0.05


@pytest.mark.parametrize(
    ("masks", "discount"),
    [
        ((1, 1, 1), 0.9),
        pytest.param((0, 0, 0), 0.9, marks=pytest.mark.slow),
        pytest.param((1, 1, 0), 0.7, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_missing_mask_or_a_wrong_discount_is_no_such_value(masks: Any, discount: float):
    assert chain_error(masks, discount).min() > 0.2


# Parts -----------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    st.floats(-5, 5, width=32),
    st.floats(0, 5, width=32),
    st.floats(0.5, 0.9375, width=32),
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.integers(0, 2**31 - 1),
)
def test_every_critic_has_its_own_target_inside_what_can_be_earned(
    low: float, wide: float, discount: float, ended: list[bool], seed: int
):
    reward_range = (low, low + wide)
    rng = np.random.default_rng(seed)
    critic = Critic(2, 1, (4,), count=3, key=jax.random.key(seed))
    rewards = rng.uniform(*reward_range, 6).astype(np.float32)
    masks = 1 - np.asarray(ended, np.float32)
    states, actions = rng.normal(size=(6, 2)), rng.uniform(-1, 1, (6, 1))
    least, most = return_bounds(reward_range, jnp.asarray(discount))
    y = fqe_target(critic, rewards, masks, states, actions, discount, (least, most))
    assert y.shape == (3, 6)
    assert (y >= least - 1e-4).all()
    assert (y <= most + 1e-4).all()
    plain = rewards + discount * masks * np.asarray(critic(states, actions))
    np.testing.assert_allclose(y, np.clip(plain, least, most), rtol=1e-4, atol=1e-4)
    ends = np.tile(rewards[masks == 0], (3, 1))
    np.testing.assert_allclose(y[:, masks == 0], ends, rtol=1e-4, atol=1e-4)


@given(st.floats(0.001, 0.1), st.floats(0.9, 0.999), st.integers(1, 3000))
def test_how_far_a_fit_has_come_is_that_of_a_target_that_follows(
    tau: float, discount: float, steps: int
):
    """One state that leads to itself: each step, the target moves by tau towards 1 + discount of
    itself, and settles at 1 / (1 - discount)."""
    target, settled = 0.0, 1 / (1 - discount)
    for _ in range(steps):
        target += tau * (1 + discount * target - target)
    left = 1 - target / settled
    assert FQE(tau=tau).unsettled(steps, discount) == pytest.approx(left, abs=0.01)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"tau": 0.0}, {"hidden": (0,)}, {"batch_size": 0}])
def test_settings_out_of_range_are_named(wrong: dict[str, Any]):
    with pytest.raises(DeFlowError, match=next(iter(wrong))):
        FQE(**wrong).validate()
