"""Each system on a bandit with two modes and known values: what its extraction must do there."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from tests.agents.small import MODE, SIZES, WIDTH, bandit, train

from deflow.agents.bc import BC
from deflow.agents.deflow import DeFlow
from deflow.agents.fawac import FAWAC
from deflow.agents.fbrac import FBRAC
from deflow.agents.floq import Floq
from deflow.agents.fql import FQL
from deflow.agents.ifql import IFQL
from deflow.agents.iql import IQL
from deflow.agents.rebrac import ReBRAC


def to_the_right(actions: np.ndarray) -> np.ndarray:
    """The right mode is worth 1, the left 0, and nothing in between."""
    return (actions[..., 0] > 0).astype(np.float32)


def outwards(actions: np.ndarray) -> np.ndarray:
    """Both modes are worth more further out: they need opposite shifts."""
    return np.abs(actions[..., 0])


def slope(actions: np.ndarray) -> np.ndarray:
    """The further to the right, the better."""
    return actions[..., 0]


def right(actions: np.ndarray) -> np.ndarray:
    """[seeds]: the share of actions at the right mode."""
    return (actions[..., 0] > 0).mean(1)


def at_a_mode(actions: np.ndarray, slack: float = 5 * WIDTH) -> np.ndarray:
    """[seeds]: the share of actions within some deviations of either mode."""
    near = np.hypot(np.abs(actions[..., 0]) - MODE, actions[..., 1]) < slack
    return near.mean(1)


def test_bc_takes_the_mean_which_is_no_mode():
    actions = train(BC(**without(SIZES, "tau")), bandit(to_the_right), 800).actions(count=4)
    assert np.abs(actions).max() < 0.15


def test_a_flow_covers_both_modes_and_best_of_n_takes_the_better():
    found = train(IFQL(**SIZES, best_of=16), bandit(to_the_right), 1500)
    assert (right(found.actions()) > 0.98).all()
    single = found.each(lambda agent, state: agent.base(state, jnp.zeros((512, 1)), noise(512)))
    assert (np.abs(right(single) - 0.5) < 0.12).all()
    assert (at_a_mode(single) > 0.8).all()


def test_weights_shift_mass_to_the_better_mode():
    found = train(FAWAC(**SIZES), bandit(to_the_right), 1500, alpha=(10.0, 0.0)).actions()
    sharp, flat = found[:3], found[3:]
    assert (right(sharp) > 0.95).all()
    assert (np.abs(right(flat) - 0.5) < 0.12).all()
    assert (at_a_mode(sharp) > 0.6).all()


@pytest.mark.slow
def test_iql_leans_its_mean_to_the_better_mode_and_knows_both_values():
    found = train(IQL(**SIZES, alpha=10.0, expectile=0.9), bandit(to_the_right), 1500)
    assert (found.actions(count=4)[..., 0] > 0.3).all()
    modes = jnp.asarray([[MODE, 0.0], [-MODE, 0.0]])
    values = found.each(lambda agent, state: agent.value(state, jnp.zeros((2, 1)), modes))
    np.testing.assert_allclose(values, np.tile([1.0, 0.0], (3, 1)), atol=0.1)
    # The expectile t of a coin with values 0 and 1 is t: t (1 - v) = (1 - t) v.
    state_values = found.each(lambda agent, state: state.value.model(jnp.zeros((1, 1))))
    np.testing.assert_allclose(state_values, 0.9, atol=0.05)


@pytest.mark.slow
def test_rebrac_climbs_until_the_penalty_holds_it():
    """On r = a the optimum of -Q/|Q| + alpha |a - data|^2 is known: the data's mean, 0, plus
    1 / (2 alpha |Q|), and |Q| = a there, so that a^2 = 1 / (2 alpha). The data are everywhere."""
    agent = ReBRAC(**SIZES, alpha_actor=4.0, alpha_critic=0.0)
    actions = train(agent, bandit(slope, everywhere=True), 2000).actions(count=4)
    np.testing.assert_allclose(actions[..., 0], np.sqrt(1 / 8), atol=0.06)
    assert np.abs(actions[..., 1]).max() < 0.1


@pytest.mark.parametrize("sees", ["state-action", pytest.param("state", marks=pytest.mark.slow)])
def test_refinement_improves_each_mode_only_if_it_sees_the_action(sees: Any):
    delta = 0.005
    agent = DeFlow(**SIZES, delta=delta, residual_sees=sees)
    found = train(agent, bandit(outwards), 2500)
    base, refined = found.actions("propose"), found.actions("act")
    shift = np.abs(refined[..., 0]) - np.abs(base[..., 0])
    gains = [[shift[i][s * base[i, :, 0] > 0].mean() for s in (-1, 1)] for i in range(3)]
    # The mean over two dimensions of the squared residual is delta, all of it in the first.
    furthest = np.sqrt(2 * delta)
    squared = np.square(refined - base).mean((1, 2))
    if sees == "state-action":
        assert (squared < 1.5 * delta).all()
        assert np.min(gains) > 0.3 * furthest
        assert np.max(gains) < 1.4 * furthest
    else:
        assert (np.min(gains, axis=1) < 0.02).all()


@pytest.mark.parametrize("system", [FQL, pytest.param(FBRAC, marks=pytest.mark.slow)])
def test_distillation_and_backpropagation_raise_q_and_alpha_ties_them_to_the_data(system: Any):
    data = bandit(slope, everywhere=True)
    found = train(system(**SIZES, integration_steps=5), data, 1500, alpha=(0.1, 300.0)).actions()[
        ..., 0
    ]
    loose, tight = found[:3], found[3:]
    assert (loose.mean(1) > 0.8).all()
    assert (np.abs(tight.mean(1)) < 0.15).all()
    # The data's own spread, that of a uniform number, is kept by the one and not by the other.
    assert (np.abs(tight.std(1) - 0.95 / np.sqrt(3)) < 0.15).all()


@pytest.mark.slow
def test_a_flow_critic_recovers_the_mean_of_random_returns():
    """Returns are uniform, 0.3 about 0.7 on the right and about 0.3 on the left."""

    def spread(actions: np.ndarray) -> np.ndarray:
        middle = np.where(actions[..., 0] > 0, 0.7, 0.3)
        return middle + np.random.default_rng(1).uniform(-0.3, 0.3, len(actions))

    few = {"critic_depth": 2, "noise_samples": 4, "integration_steps": 2}
    agent = Floq(**{**SIZES, "learning_rate": 1e-3}, **few, discount=0.5)
    found = train(agent, bandit(spread), 2000)
    modes = jnp.asarray([[MODE, 0.0], [-MODE, 0.0]])
    values = found.each(lambda agent, state: agent.value(state, jnp.zeros((2, 1)), modes))
    np.testing.assert_allclose(values, np.tile([0.7, 0.3], (3, 1)), atol=0.1)


def noise(count: int) -> Any:
    """Where a flow starts."""
    import jax

    return jax.random.normal(jax.random.key(4), (count, 2))


def without(settings: dict[str, Any], *names: str) -> dict[str, Any]:
    """Settings but for some."""
    return {name: value for name, value in settings.items() if name not in names}
