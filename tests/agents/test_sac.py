"""SAC: each loss in closed form, a bandit and a chain with known soft values."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.agents.online import begun, gradients, learn, observed, updated
from tests.agents.small import CHAIN_DISCOUNT, SIZES, bandit, chain

from deflow.agents.sac import SAC, SACState
from deflow.core.errors import DeFlowError
from deflow.core.types import Batch, Clock, Spec
from deflow.nn.learner import polyak

SPEC = Spec(observation_dim=4, action_dim=3, reward_range=(-1.0, 0.0), total_steps=10)
SMALL: dict[str, Any] = {"hidden": (8, 8), "batch_size": 16}


@pytest.fixture(scope="module")
def batch() -> Batch:
    return observed(SPEC, 16)


@pytest.fixture(scope="module")
def state() -> SACState:
    """Networks whose target critic stands apart from the critic."""
    fresh = begun(SAC(**SMALL, init_temperature=0.4), SPEC)
    apart = jax.tree.map(lambda leaf: 0.9 * leaf + 0.01, fresh.target_critic)
    return eqx.tree_at(lambda s: s.target_critic, fresh, apart)


@pytest.mark.parametrize("how", ["min", "mean"])
@pytest.mark.parametrize("backup", [True, False])
def test_every_loss_is_as_written(state: SACState, batch: Batch, how: Any, backup: bool):
    own = SAC(**SMALL, entropy_backup=backup, target_aggregation=how, actor_aggregation=how)
    noise = own.draw_update(jax.random.key(3), SPEC)
    _, metrics = gradients(own, state, batch, noise)
    take = jnp.min if how == "min" else jnp.mean
    policy = state.actor.model

    actions, log_probs = policy.sample(batch.next_observations, noise.target)
    next_q = take(state.target_critic(batch.next_observations, actions), axis=0)
    soft = next_q - (0.4 * log_probs if backup else 0)
    target = batch.rewards + 0.99 * batch.masks * soft
    q = state.critic.model(batch.observations, batch.actions)
    assert float(metrics["critic/loss"]) == pytest.approx(
        float(jnp.square(q - target).mean()), rel=1e-5
    )

    actions, log_probs = policy.sample(batch.observations, noise.actor)
    q = take(state.critic.model(batch.observations, actions), axis=0)
    assert float(metrics["actor/loss"]) == pytest.approx(
        float((0.4 * log_probs - q).mean()), rel=1e-5
    )
    assert float(metrics["actor/temperature_loss"]) == pytest.approx(
        0.4 * (float(-log_probs.mean()) + 0.5 * 3), rel=1e-4
    )


def test_an_update_steps_all_and_averages_what_was(state: SACState, batch: Batch):
    own = SAC(**SMALL, tau=0.25)
    new, _ = updated(own, SPEC, state, batch, own.draw_update(jax.random.key(3), SPEC))
    for name in ("critic", "actor", "log_temperature"):
        assert not eqx.tree_equal(getattr(new, name).model, getattr(state, name).model), name
    averaged = polyak(state.target_critic, state.critic.model, 0.25)
    assert eqx.tree_equal(new.target_critic, averaged, rtol=1e-6, atol=1e-7)


def test_it_begins_in_an_empty_world_with_the_settings_of_the_ant():
    own = SAC()
    own.validate()
    assert not own.needs_data
    assert own.phases(SPEC, "joint") == ()
    found = own.online(SPEC, 400_000)
    assert (found.phase.name, found.phase.steps, found.phase.fields) == ("online", 400_000, ())
    assert (found.balanced, found.random_steps) == (False, 10_000)
    state = begun(own, SPEC)
    assert float(own.temperature(state)) == 1
    assert [layer.weight.shape for layer in state.actor.model.net.layers][-1] == (256, 6)
    assert len(state.critic.model.nets.members) == 2
    assert state.critic.model.nets.members[0].norms == ()


def test_it_judges_by_the_mode_and_explores_by_samples(state: SACState, batch: Batch):
    own, noise = SAC(**SMALL), jax.random.normal(jax.random.key(4), (16, 3))
    judged = own.act(state, batch.observations, noise, "evaluate")
    np.testing.assert_allclose(judged, state.actor.model.mode(batch.observations))
    explored = own.act(state, batch.observations, noise, "explore")
    np.testing.assert_allclose(explored, state.actor.model.sample(batch.observations, noise)[0])
    assert not np.allclose(judged, explored)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("init_temperature", 0.0), ("target_entropy_multiplier", -1.0), ("random_steps", -1)],
)
def test_a_setting_out_of_range_is_named(setting: str, value: Any):
    with pytest.raises(DeFlowError, match=setting):
        SAC(**{setting: value}).validate()


# Known answers ---------------------------------------------------------------------------------


def slope(actions: np.ndarray) -> np.ndarray:
    """The further to the right, the better; the second dimension does not matter."""
    return actions[..., 0]


@pytest.mark.slow
def test_on_a_bandit_it_goes_where_the_reward_is_and_keeps_its_entropy():
    """With r = a the mode lies on the right; in the other dimension there is nothing to gain. The
    temperature holds the entropy of both at its target, which is -1 in two dimensions."""
    agent = SAC(**SIZES, init_temperature=0.2)
    found = learn(agent, bandit(slope, everywhere=True), 2000)
    modes = found.actions(count=4)
    assert (modes[..., 0] > 0.7).all()
    assert (np.abs(modes[..., 1]) < 0.35).all()
    actions = jnp.asarray([[0.5, 0.0], [-0.5, 0.0]])
    values = found.each(lambda agent, state: agent.value(state, jnp.zeros((2, 1)), actions))
    np.testing.assert_allclose(values, np.tile([0.5, -0.5], (3, 1)), atol=0.05)

    def entropy(agent: SAC, state: SACState) -> Any:
        noise = jax.random.normal(jax.random.key(7), (2000, 2))
        return -state.actor.model.sample(jnp.zeros((1, 1)), noise)[1].mean()

    np.testing.assert_allclose(found.each(entropy), -1.0, atol=0.4)


def test_the_values_of_the_chain_hold_the_entropy_that_is_still_to_come():
    """The actions do not matter, so that the entropy is at most that of the uniform, 2 log 2. At a
    temperature of 0.5 the policy becomes uniform, and each next state adds
    0.5 times that: Q = -1, then -1 + 0.9 (0.5 H + Q)."""
    bonus = 0.5 * 2 * math.log(2)
    last = -1.0
    middle = -1 + CHAIN_DISCOUNT * (bonus + last)
    first = -1 + CHAIN_DISCOUNT * (bonus + middle)
    settings = {**SIZES, "learning_rate": 1e-3, "discount": CHAIN_DISCOUNT}
    found = learn(Still(**settings, init_temperature=0.5), chain(), 2000)
    actions = jnp.zeros((3, 2))
    values = found.each(lambda agent, state: agent.value(state, jnp.eye(3), actions))
    np.testing.assert_allclose(values, np.tile([first, middle, last], (3, 1)), atol=0.15)


class Still(SAC):
    """SAC with a temperature that does not move."""

    def policy_gradients(self, state: Any, batch: Batch, noise: Any, clock: Clock) -> Any:
        grads, metrics = super().policy_gradients(state, batch, noise, clock)
        return {"actor": grads["actor"]}, metrics
