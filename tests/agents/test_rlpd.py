"""RLPD: its ensemble, its actor's rests, and a bandit and a chain with known values."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.agents.online import begun, learn, observed, updated
from tests.agents.small import CHAIN_DISCOUNT, CHAIN_VALUES, SIZES, bandit, chain

from deflow.agents.rlpd import RLPD
from deflow.agents.sac import SACState
from deflow.core.errors import DeFlowError
from deflow.core.types import Batch, Spec

SPEC = Spec(observation_dim=4, action_dim=3, reward_range=(-1.0, 0.0), total_steps=10)
SMALL: dict[str, Any] = {"hidden": (8, 8), "batch_size": 16}
RESTING = ("actor", "log_temperature")


@pytest.fixture(scope="module")
def batch() -> Batch:
    return observed(SPEC, 16)


def test_it_begins_with_data_of_which_half_of_each_batch_is_made():
    own = RLPD()
    own.validate()
    assert own.needs_data
    assert own.phases(SPEC, "joint") == ()
    found = own.online(SPEC, 50)
    assert (found.phase.name, found.phase.steps, found.phase.fields) == ("online", 50, ())
    assert (found.balanced, found.random_steps) == (True, 0)
    assert RLPD(random_steps=5000).online(SPEC, 50).random_steps == 5000


def test_the_default_is_fqls(batch: Batch):
    """Two critics of 4x512 with LayerNorm, their mean, and no entropy in the target."""
    state = jax.eval_shape(lambda: RLPD().init(jax.random.key(0), SPEC))
    widths = [layer.weight.shape[1] for layer in state.critic.model.nets.members[0].layers]
    assert widths == [512] * 4 + [1]
    assert len(state.critic.model.nets.members) == 2
    assert len(state.critic.model.nets.members[0].norms) == 4
    own = RLPD(**SMALL)
    state = begun(own, SPEC)
    noise = own.draw_update(jax.random.key(1), SPEC)
    actions, _ = state.actor.model.sample(batch.next_observations, noise.target)
    expected = state.target_critic(batch.next_observations, actions).mean(0)
    found = own.next_values(state, batch.next_observations, noise)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_target_asks_a_subset_of_the_critics_drawn_anew(batch: Batch):
    own = RLPD(**SMALL, critics=5, subset=2, target_aggregation="min")
    state = begun(own, SPEC)
    seen = set()
    for seed in range(40):
        noise = own.draw_update(jax.random.key(seed), SPEC)
        asked = np.asarray(noise.critic)
        assert len(set(asked)) == 2
        seen |= {int(number) for number in asked}
    assert seen == set(range(5))
    actions, _ = state.actor.model.sample(batch.next_observations, noise.target)
    q = state.target_critic(batch.next_observations, actions)
    expected = jnp.minimum(q[asked[0]], q[asked[1]])
    np.testing.assert_allclose(own.next_values(state, batch.next_observations, noise), expected)


def test_the_actor_rests_between_its_steps_and_the_critics_do_not(batch: Batch):
    own = RLPD(**SMALL, actor_every=3)
    states: list[SACState] = [begun(own, SPEC)]
    for step in range(6):
        noise = own.draw_update(jax.random.key(step), SPEC)
        new, metrics = updated(own, SPEC, states[-1], batch, noise, jnp.asarray(step))
        states.append(new)
        for room in ("actor", "log_temperature"):
            assert float(metrics[f"{room}/measured"]) == (step in (2, 5))
    for step in range(6):
        before, after = states[step], states[step + 1]
        for name in RESTING:
            rests = bool(eqx.tree_equal(getattr(before, name), getattr(after, name)))
            assert rests == (step not in (2, 5)), (name, step)
        assert not eqx.tree_equal(before.critic, after.critic)
        assert not eqx.tree_equal(before.target_critic, after.target_critic)


@pytest.mark.slow
def test_where_it_steps_it_steps_as_it_would_at_every_update(batch: Batch):
    always, seldom = RLPD(**SMALL), RLPD(**SMALL, actor_every=4)
    state = begun(always, SPEC)
    noise = always.draw_update(jax.random.key(1), SPEC)
    both = [updated(own, SPEC, state, batch, noise, jnp.asarray(3))[0] for own in (always, seldom)]
    for one, other in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_a_subset_is_no_larger_than_the_whole():
    with pytest.raises(DeFlowError, match=r"subset must be at most critics, 2, but it is 3\."):
        RLPD(subset=3).validate()
    RLPD(critics=10, subset=2).validate()


# Known answers ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_on_a_bandit_it_goes_where_the_reward_is():
    found = learn(RLPD(**SIZES), bandit(lambda a: a[..., 0], everywhere=True), 1200)
    modes = found.actions(count=4)
    assert (modes[..., 0] > 0.5).all()
    actions = jnp.asarray([[0.5, 0.0], [-0.5, 0.0]])
    values = found.each(lambda agent, state: agent.value(state, jnp.zeros((2, 1)), actions))
    np.testing.assert_allclose(values, np.tile([0.5, -0.5], (3, 1)), atol=0.05)


@pytest.mark.slow
def test_values_of_the_chain_hold_no_entropy():
    settings = {**SIZES, "learning_rate": 1e-3, "discount": CHAIN_DISCOUNT}
    agent = RLPD(**settings, critics=3, subset=2, target_aggregation="min", actor_every=4)
    found = learn(agent, chain(), 1500)
    actions = jnp.zeros((3, 2))
    values = found.each(lambda agent, state: agent.value(state, jnp.eye(3), actions))
    np.testing.assert_allclose(values, np.tile(CHAIN_VALUES, (3, 1)), atol=0.1)
