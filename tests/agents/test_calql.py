"""Cal-QL: its parts as the official code has them, and a bandit and a chain with known values."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.agents.online import begun, gradients, observed, updated
from tests.agents.small import CHAIN_DISCOUNT, CHAIN_VALUES, MODE, SIZES, bandit, chain, train

from deflow.agents.calql import CalQL, CalQLState
from deflow.core.errors import DeFlowError
from deflow.core.types import Batch, Clock, Spec
from deflow.nn.mlp import MLP

SPEC = Spec(observation_dim=4, action_dim=3, reward_range=(-1.0, 0.0), total_steps=10)
SMALL: dict[str, Any] = {"hidden": (8, 8), "batch_size": 16, "samples": 3}
CLOCK = Clock(jnp.asarray(0))


@pytest.fixture(scope="module")
def batch() -> Batch:
    return observed(SPEC, 16)


@pytest.fixture(scope="module")
def state() -> CalQLState:
    """Networks that say something, and a target critic that stands apart from the critic."""
    fresh = begun(CalQL(**SMALL, lagrange=True), SPEC)
    louder = jax.tree.map(lambda leaf: 1.3 * leaf + 0.02, fresh)
    own = (louder.critic.model, louder.target_critic, louder.actor.model)
    return eqx.tree_at(lambda s: (s.critic.model, s.target_critic, s.actor.model), fresh, own)


def test_the_order_of_training():
    own = CalQL()
    own.validate()
    (joint,) = own.phases(SPEC, "joint")
    found = own.online(SPEC, 70)
    assert (joint.name, joint.steps, joint.fields) == ("joint", 10, ("returns",))
    assert (found.phase.name, found.phase.steps) == ("online", 70)
    assert found.phase.fields == ("returns",)
    assert (found.balanced, found.random_steps, own.needs_data) == (True, 0, True)


def test_returns_are_of_the_rewards_that_the_critics_see(state: CalQLState, batch: Batch):
    own = CalQL(**SMALL, reward_scale=10.0, reward_bias=-5.0, discount=0.9)
    assert own.column_settings("returns") == {"discount": 0.9, "scale": 10.0, "bias": -5.0}
    assert own.column_settings("proposals") == {}
    noise = own.draw_update(jax.random.key(3), SPEC)
    plain = dataclasses.replace(own, reward_scale=1.0, reward_bias=0.0)
    scaled = dataclasses.replace(batch, rewards=10 * batch.rewards - 5)
    _, expected = gradients(plain, state, scaled, noise)
    _, found = gradients(own, state, batch, noise)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("backup", [False, True])
def test_the_target_takes_the_best_of_several_next_actions(
    state: CalQLState, batch: Batch, backup: bool
):
    own = CalQL(**SMALL, entropy_backup=backup)
    noise = own.draw_update(jax.random.key(3), SPEC)
    found = own.next_values(state, batch.next_observations, noise)
    actions, log_probs = state.actor.model.sample(batch.next_observations, noise.target)
    assert actions.shape == (3, 16, 3)
    q = np.asarray(state.target_critic(batch.next_observations, actions).min(0))
    for row in range(16):
        best = q[:, row].argmax()
        bonus = -float(log_probs[best, row]) if backup else 0.0
        assert float(found[row]) == pytest.approx(q[best, row] + bonus, rel=1e-5)


def test_candidates_are_uniform_and_the_policys_at_both_states(state: CalQLState, batch: Batch):
    own = CalQL(**SMALL)
    noise = own.draw_update(jax.random.key(3), SPEC)
    found = own.candidates(state, batch, noise)
    here, here_log = state.actor.model.sample(batch.observations, noise.here)
    ahead, ahead_log = state.actor.model.sample(batch.next_observations, noise.ahead)
    np.testing.assert_allclose(found.policy, np.concatenate([here, ahead]))
    np.testing.assert_allclose(found.log_probs, np.concatenate([here_log, ahead_log]))
    many = np.asarray(CalQL(**{**SMALL, "samples": 200}).draw_update(jax.random.key(4), SPEC)[2])
    assert np.abs(many).max() <= 1
    assert many.mean() == pytest.approx(0, abs=0.03)
    assert many.std() == pytest.approx(1 / math.sqrt(3), abs=0.03)


@pytest.mark.parametrize("lagrange", [False, True])
def test_the_weight_is_fixed_or_learnt(state: CalQLState, batch: Batch, lagrange: bool):
    own = CalQL(**SMALL, lagrange=lagrange, alpha=0.5, gap=0.8)
    own_state = state if lagrange else dataclasses.replace(state, log_weight=None)
    noise = own.draw_update(jax.random.key(3), SPEC)
    grads, metrics = gradients(own, own_state, batch, noise)
    weight = 0.5 * math.e if lagrange else 0.5
    over = float(metrics["critic/excess"]) - (0.8 if lagrange else 0)
    assert float(metrics["critic/weight"]) == pytest.approx(weight)
    assert float(metrics["critic/loss"]) == pytest.approx(
        float(metrics["critic/td_loss"]) + 2 * weight * over, rel=1e-4
    )
    assert ("log_weight" in grads) == lagrange
    if lagrange:
        assert float(grads["log_weight"]) == pytest.approx(-weight * over, rel=1e-4)
    assert (begun(own, SPEC).log_weight is not None) == lagrange


def test_the_policy_steps_more_slowly_than_the_critics(state: CalQLState, batch: Batch):
    """Adam's first step is its rate, whatever the gradient."""
    own = CalQL(**SMALL, lagrange=True)
    new, _ = updated(own, SPEC, state, batch, own.draw_update(jax.random.key(3), SPEC))

    def furthest(name: str) -> float:
        pairs = zip(
            jax.tree.leaves(getattr(new, name).model),
            jax.tree.leaves(getattr(state, name).model),
            strict=True,
        )
        return max(float(jnp.abs(a - b).max()) for a, b in pairs)

    for name, rate in {"critic": 3e-4, "log_weight": 3e-4, "actor": 1e-4}.items():
        assert furthest(name) == pytest.approx(rate, rel=0.01), name
    assert furthest("log_temperature") == pytest.approx(1e-4, rel=0.01)


def test_the_temperatures_pace_does_not_depend_on_it(state: CalQLState, batch: Batch):
    own = CalQL(**SMALL)
    warm = eqx.tree_at(lambda s: s.log_temperature.model, state, jnp.asarray(1.5))
    noise = own.draw_update(jax.random.key(3), SPEC)
    grads, metrics = gradients(own, warm, batch, noise)
    slope = float(metrics["actor/entropy"]) + 3  # The target is -1 for each of three dimensions.
    assert float(grads["log_temperature"]) == pytest.approx(slope, rel=1e-5)


def test_kernels_are_orthogonal_and_differ_from_each_other():
    state = begun(CalQL(hidden=(12, 12)), SPEC)
    is_net = lambda node: isinstance(node, MLP)  # noqa: E731
    nets = jax.tree.leaves((state.critic.model, state.actor.model), is_leaf=is_net)
    nets = [net for net in nets if is_net(net)]
    assert len(nets) == 3
    for net in nets:
        for layer in net.layers:
            gain = 0.01 if layer is net.layers[-1] else math.sqrt(2)
            singular = np.linalg.svd(np.asarray(layer.weight), compute_uv=False)
            np.testing.assert_allclose(singular, gain, rtol=1e-4)
    firsts = [np.asarray(net.layers[1].weight) for net in nets]
    assert not any(np.allclose(firsts[i], firsts[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("gap", math.nan),
        ("reward_bias", math.inf),
        ("reward_scale", 0.0),
        ("alpha", -1.0),
        ("samples", 0),
    ],
)
def test_a_setting_out_of_range_is_named(setting: str, value: Any):
    with pytest.raises(DeFlowError, match=setting):
        CalQL(**{setting: value}).validate()


# Known answers ---------------------------------------------------------------------------------

FEW: dict[str, Any] = {**SIZES, "samples": 2, "policy_learning_rate": 1e-3}


@pytest.mark.slow
def test_the_push_down_tells_a_better_mode_from_what_was_never_tried():
    """The right mode is worth 1, the left 0; between and beyond them nothing is known."""
    data = bandit(lambda actions: (actions[..., 0] > 0).astype(np.float32))
    found = train(CalQL(**FEW), data, 1200, alpha=(0.0, 0.3))
    places = jnp.asarray([[MODE, 0.0], [-MODE, 0.0], [0.9, 0.9], [0.9, -0.9], [0.9, 0.0]])
    values = found.each(lambda agent, state: agent.value(state, jnp.zeros((5, 1)), places))
    free, cautious = values[:3], values[3:]
    np.testing.assert_allclose(free[:, :2], np.tile([1.0, 0.0], (3, 1)), atol=0.1)
    assert (cautious[:, 2:].max(1) < cautious[:, 0] - 0.3).all(), "the unknown is worth less"
    assert (cautious[:, 2:].max(1) < free[:, 2:].max(1) - 0.3).all()
    modes = found.actions(count=2)[3:, 0]
    assert (np.abs(modes[:, 0] - MODE) < 0.25).all()
    assert (np.abs(modes[:, 1]) < 0.25).all()


def test_values_of_the_chain_are_those_of_the_scaled_rewards():
    """What is worth the same everywhere is neither pushed down nor up: with Q = R flat in the
    action, the excess is the log of the box's area times the six actions. Rewards of -1 become
    -3, so that returns of other rewards than the critics' would bound nothing, or all."""
    settings = {**FEW, "learning_rate": 1e-3, "discount": CHAIN_DISCOUNT, "alpha": 0.5}
    agent = CalQL(**settings, reward_scale=2.0, reward_bias=-1.0)
    found = train(agent, chain(), 1500)
    actions = jnp.zeros((3, 2))
    values = found.each(lambda agent, state: agent.value(state, jnp.eye(3), actions))
    np.testing.assert_allclose(values, np.tile(3 * np.asarray(CHAIN_VALUES), (3, 1)), atol=0.25)

    def exceeds(agent: CalQL, state: CalQLState) -> Any:
        noise = agent.draw_update(jax.random.key(5), found.spec)
        size = agent.batch_size
        batch = Batch(
            observations=jnp.tile(jnp.eye(3)[1], (size, 1)),
            actions=jnp.zeros((size, 2)),
            rewards=-jnp.ones(size),
            masks=jnp.ones(size),
            next_observations=jnp.tile(jnp.eye(3)[2], (size, 1)),
            fields={"returns": jnp.full(size, 3 * CHAIN_VALUES[1])},
        )
        return agent.gradients(state, batch, noise, CLOCK)[1]["critic/excess"]

    np.testing.assert_allclose(found.each(exceeds), math.log(4 * 6), atol=0.3)
