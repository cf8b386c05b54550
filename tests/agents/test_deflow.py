"""Each setting of DeFlow does what it says, on one update at a small size."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deflow.agents.deflow import DeFlow, DeFlowState
from deflow.agents.shared import CachedNoise, draw_cached
from deflow.core.errors import DeFlowError
from deflow.core.types import Batch, Clock, Spec
from deflow.extraction.refinement import refine
from deflow.nn.learner import polyak
from deflow.training.family import Family, members_of

SPEC = Spec(observation_dim=4, action_dim=3, reward_range=(-1.0, 0.0), total_steps=10)
SMALL: dict[str, Any] = {"hidden": (8, 8), "batch_size": 16, "integration_steps": 4}
CLOCK = Clock(jnp.asarray(0))


def agent(**settings: Any) -> DeFlow:
    return DeFlow(**{**SMALL, **settings})


@pytest.fixture(scope="module")
def batch() -> Batch:
    keys = jax.random.split(jax.random.key(1), 4)
    return Batch(
        observations=jax.random.normal(keys[0], (16, 4)),
        actions=jax.random.uniform(keys[1], (16, 3), minval=-1),
        rewards=-jax.random.uniform(keys[2], (16,)),
        masks=(jnp.arange(16) % 4 > 0).astype(jnp.float32),
        next_observations=jax.random.normal(keys[3], (16, 4)),
    )


@pytest.fixture(scope="module")
def state() -> DeFlowState:
    """Networks whose target critic stands apart from the critic."""
    begun: DeFlowState = agent().init(jax.random.key(2), SPEC)
    apart = jax.tree.map(lambda leaf: 0.9 * leaf + 0.01, begun.target_critic)
    return eqx.tree_at(lambda s: s.target_critic, begun, apart)


@pytest.fixture(scope="module")
def bases(state: DeFlowState, batch: Batch) -> tuple[jax.Array, jax.Array]:
    noise = agent().draw_joint(jax.random.key(3), SPEC)
    return (
        agent().propose(state, batch.next_observations, noise.target),
        agent().propose(state, batch.observations, noise.actor),
    )


def measured(state: DeFlowState, batch: Batch, bases: Any, **settings: Any) -> dict[str, float]:
    _, metrics = agent(**settings).policy_gradients(state, batch, *bases, ())
    return {name: float(value) for name, value in metrics.items()}


def moved(own: DeFlow, state: DeFlowState, batch: Batch, bases: Any) -> tuple[DeFlowState, Any]:
    """The state after one step of everything but the flow."""
    grads, metrics = own.policy_gradients(state, batch, *bases, ())
    return own.stepped(state, grads, CLOCK), metrics


def joint(own: DeFlow, state: DeFlowState, batch: Batch, noise: Any) -> tuple[DeFlowState, Any]:
    """One update of the published schedule."""
    return own.phases(SPEC, "joint")[0].update(own, state, batch, noise, CLOCK)


def online(own: DeFlow, state: DeFlowState, batch: Batch, noise: Any) -> tuple[DeFlowState, Any]:
    """One update of the online phase."""
    return own.online(SPEC, 10).phase.update(own, state, batch, noise, CLOCK)


def on_cache(own: DeFlow, state: DeFlowState, batch: Batch, noise: Any) -> DeFlowState:
    """One update of the second phase of flow-first."""
    return own.phases(SPEC, "flow-first")[1].update(own, state, batch, noise, CLOCK)[0]


def same(one: Any, other: Any) -> bool:
    """Equal bit for bit."""
    return bool(eqx.tree_equal(one, other))


# The multiplier --------------------------------------------------------------------------------


def test_a_learnt_alpha_begins_at_its_setting_and_moves(state, batch, bases):
    metrics = measured(state, batch, bases)
    assert metrics["actor/alpha"] == pytest.approx(np.e)
    slack = metrics["actor/squared_residual"] - 0.001
    assert metrics["actor/alpha_loss"] == pytest.approx(-slack, rel=1e-4)
    other = agent(log_alpha_init=0.0).init(jax.random.key(2), SPEC)
    assert float(other.log_alpha.model) == 0
    new, _ = moved(agent(), state, batch, bases)
    assert float(new.log_alpha.model) == pytest.approx(1 + 3e-4 * np.sign(slack), abs=1e-6)


@pytest.mark.parametrize(("squared", "weight"), [(False, 0.3), (True, 0.09)])
def test_a_fixed_alpha_stays_and_is_squared_only_when_asked(state, batch, bases, squared, weight):
    fixed = agent(fixed_alpha=0.3, legacy_alpha_squared=squared)
    new, metrics = moved(fixed, state, batch, bases)
    assert float(metrics["actor/alpha"]) == pytest.approx(weight)
    expected = metrics["actor/q_loss"] + weight * metrics["actor/squared_residual"]
    assert float(metrics["actor/loss"]) == pytest.approx(float(expected), rel=1e-5)
    assert metrics["actor/alpha_loss"] == 0
    assert same(new.log_alpha.model, state.log_alpha.model)


def test_fixed_and_learnt_multipliers_train_in_one_family():
    family = Family.build(agent(), members_of((0,), {"fixed_alpha": (0.0, 0.3)}))
    assert [float(a) for a in family.agents.fixed_alpha] == pytest.approx([0.0, 0.3])
    states = family.init(SPEC)
    alphas = jax.vmap(type(agent()).alpha)(family.agents, states)
    np.testing.assert_allclose(alphas, [np.e, 0.3], rtol=1e-6)


def test_the_linear_form_scales_the_multipliers_loss(state, batch, bases):
    log, linear = (
        measured(state, batch, bases, multiplier_form=form) for form in ("log", "linear")
    )
    assert linear["actor/alpha_loss"] == pytest.approx(np.e * log["actor/alpha_loss"], rel=1e-5)
    assert linear["actor/loss"] == log["actor/loss"]


# The actor's loss ------------------------------------------------------------------------------


def test_the_value_is_normalised_only_when_asked(state, batch, bases):
    on, off = (measured(state, batch, bases, normalize_q=flag) for flag in (True, False))
    assert off["actor/q_loss"] == pytest.approx(-off["actor/q"], rel=1e-5)
    assert on["actor/q"] == off["actor/q"]
    residuals = state.refinement.model(batch.observations, bases[1])
    q = agent().value(state, batch.observations, refine(bases[1], residuals))
    assert on["actor/q_loss"] == pytest.approx(float(-q.mean() / jnp.abs(q).mean()), rel=1e-5)


def test_a_sum_counts_every_action_dimension(state, batch, bases):
    mean, total = (measured(state, batch, bases, residual_reduction=how) for how in ("mean", "sum"))
    ratio = total["actor/squared_residual"] / mean["actor/squared_residual"]
    assert ratio == pytest.approx(3, rel=1e-5)


def test_the_two_penalties_differ_only_where_the_clip_is_active(state, batch, bases):
    def gradient(base: Any, penalty: Any) -> Any:
        grads, metrics = agent(penalty=penalty).policy_gradients(state, batch, bases[0], base, ())
        return grads["refinement"], float(metrics["actor/squared_residual"])

    tiny = eqx.tree_at(
        lambda s: s.refinement.model.net.layers[-1].weight, state, replace_fn=lambda w: 1e-2 * w
    )
    inside = jnp.zeros_like(bases[1])
    raw, applied = (
        agent(penalty=how).policy_gradients(tiny, batch, bases[0], inside, ())[0]["refinement"]
        for how in ("raw", "applied")
    )
    for one, other in zip(jax.tree.leaves(raw), jax.tree.leaves(applied), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-8)

    residuals = state.refinement.model(batch.observations, jnp.zeros_like(bases[1]))
    edge = jnp.sign(residuals)  # every residual that the network gives here leads outwards
    raw_grads, raw_squared = gradient(edge, "raw")
    applied_grads, applied_squared = gradient(edge, "applied")
    assert applied_squared < raw_squared
    assert not same(raw_grads, applied_grads)


# The critic's loss -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["mean", "min"])
def test_the_target_is_bootstrapped_from_the_lagging_critics(state, batch, bases, how):
    loss = measured(state, batch, bases, target_aggregation=how, discount=0.9)["critic/loss"]
    residuals = state.refinement.model(batch.next_observations, bases[0])
    both = state.target_critic(batch.next_observations, refine(bases[0], residuals))
    next_q = both.mean(0) if how == "mean" else both.min(0)
    target = batch.rewards + 0.9 * batch.masks * next_q
    q = state.critic.model(batch.observations, batch.actions)
    assert loss == pytest.approx(float(jnp.square(q - target).mean()), rel=1e-5)


def test_the_targets_take_the_parameters_from_before_the_step(state, batch, bases):
    new, _ = moved(agent(tau=0.25), state, batch, bases)
    assert same(new.target_critic, polyak(state.target_critic, state.critic.model, 0.25))
    assert not same(new.critic.model, state.critic.model)


# The flow --------------------------------------------------------------------------------------


def test_a_frozen_prior_stays_bit_for_bit_and_the_rest_is_as_before(state, batch):
    noise = agent().draw_joint(jax.random.key(3), SPEC)
    frozen, metrics = online(agent(prior_online="frozen"), state, batch, noise)
    free, full = online(agent(), state, batch, noise)
    assert same(frozen.flow, state.flow)
    assert not same(free.flow.model, state.flow.model)
    assert set(full) - set(metrics) == {"flow/loss", "flow/grad_norm"}
    assert same(frozen.critic, free.critic)
    assert same(frozen.refinement, free.refinement)


def test_a_coasting_prior_is_moved_by_its_momentum_alone_and_comes_to_rest(state, batch):
    noise = agent().draw_joint(jax.random.key(3), SPEC)
    own = agent(prior_online="coasting")
    fresh, metrics = online(own, state, batch, noise)
    assert same(fresh.flow.model, state.flow.model), "without momentum nothing moves it"
    assert "flow/loss" not in metrics
    warm, _ = joint(agent(), state, batch, noise)
    update = jax.jit(lambda state: online(own, state, batch, noise)[0])
    lengths, before = [], warm
    for _ in range(60):
        after = update(before)
        weights = [s.flow.model.net.layers[0].weight for s in (before, after)]
        lengths.append(float(jnp.abs(weights[1] - weights[0]).max()))
        before = after
    assert lengths[0] > 1e-5
    # Adam's moments fall by 0.9 and by the root of 0.999 a step.
    assert lengths[-1] < 0.01 * lengths[0]


def test_offline_the_prior_learns_whatever_it_will_do_online(state, batch):
    noise = agent().draw_joint(jax.random.key(3), SPEC)
    learning, _ = joint(agent(), state, batch, noise)
    for choice in ("frozen", "coasting"):
        assert same(joint(agent(prior_online=choice), state, batch, noise)[0], learning)


def test_online_goes_on_with_the_joint_update_and_counts_its_own_steps(state, batch):
    noise = agent().draw_joint(jax.random.key(3), SPEC)
    found = agent().online(SPEC, 70)
    assert (found.phase.name, found.phase.steps) == ("online", 70)
    assert (found.balanced, found.random_steps) == (False, 0)
    expected, _ = joint(agent(), state, batch, noise)
    assert same(online(agent(), state, batch, noise)[0], expected)


def test_an_update_on_cached_proposals_is_the_joint_one_with_a_frozen_prior(state, batch):
    noise = agent().draw_joint(jax.random.key(3), SPEC)
    expected, _ = online(agent(prior_online="frozen"), state, batch, noise)
    # Each row has three proposals: the update's own, then two that its draw does not name.
    own = agent(proposals=3)
    spare = jax.random.normal(jax.random.key(4), (2, 16, 2, 3))
    columns = [
        own.base(state, observations[:, None], jnp.concatenate([x0[:, None], others], axis=1))
        for observations, x0, others in zip(
            (batch.observations, batch.next_observations),
            (noise.actor, noise.target),
            spare,
            strict=True,
        )
    ]
    fields = dict(zip(("proposals", "next_proposals"), columns, strict=True))
    first = jnp.zeros(16, jnp.int32)
    known = dataclasses.replace(batch, fields=fields)
    cached = on_cache(own, state, known, CachedNoise(first, first))
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(cached), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    third = on_cache(own, state, known, CachedNoise(first + 2, first))
    assert not np.allclose(
        third.critic.model.nets.members[0].layers[0].weight,
        cached.critic.model.nets.members[0].layers[0].weight,
    )


def test_cached_proposals_are_the_flows_own_row_by_row(state, batch):
    own = agent(proposals=2)
    (column,) = own.phases(SPEC, "flow-first")[0].leaves
    noise = column.draw(own, jax.random.key(5), 16)
    cached = column.compute(own, state, batch.observations, noise)
    assert cached.shape == (16, 2, 3)
    for k in range(2):
        np.testing.assert_allclose(
            cached[:, k], own.propose(state, batch.observations, noise[:, k]), rtol=1e-5, atol=1e-6
        )


def test_an_action_is_the_refined_proposal_inside_the_box(state, batch):
    noise = 3 * jax.random.normal(jax.random.key(6), (16, 3))
    base = agent().propose(state, batch.observations, noise)
    acted = agent().act(state, batch.observations, noise)
    expected = refine(base, state.refinement.model(batch.observations, base))
    np.testing.assert_allclose(acted, expected, rtol=1e-6)
    assert np.abs(np.asarray(base)).max() <= 1
    assert np.abs(np.asarray(acted)).max() <= 1


def test_the_schedules_share_the_flow_only_where_it_comes_first():
    published = agent().phases(SPEC, "joint")
    assert [(p.name, p.steps, p.graft) for p in published] == [("joint", 10, None)]
    flow, policy = agent(prior_steps=7).phases(SPEC, "flow-first")
    assert (flow.steps, policy.steps) == (7, 10)
    assert [field.name for field in flow.leaves] == list(policy.fields) == ["proposals"]
    begun, donor = (agent().init(jax.random.key(i), SPEC) for i in (7, 8))
    assert flow.graft is not None
    grafted = flow.graft(begun, donor)
    assert same(grafted.flow, donor.flow)
    assert same(grafted.critic, begun.critic)


def test_cached_draws_reach_every_proposal():
    drawn = draw_cached(agent(batch_size=64), jax.random.key(9), SPEC, 3)
    assert set(np.asarray(drawn.target)) == set(np.asarray(drawn.actor)) == {0, 1, 2}
    assert not np.array_equal(drawn.target, drawn.actor)


# Refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("delta", 0.0),
        ("delta", float("nan")),
        ("discount", 1.0),
        ("discount", 0.0),
        ("learning_rate", 0.0),
        ("learning_rate", float("inf")),
        ("tau", 0.0),
        ("tau", 1.1),
        ("fixed_alpha", -0.1),
        ("log_alpha_init", float("nan")),
        ("batch_size", 0),
        ("integration_steps", 0),
        ("proposals", 0),
        ("prior_steps", -1),
        ("hidden", (16, 0)),
        ("actor_hidden", (0,)),
        ("multiplier_form", "exp"),
        ("penalty", "clipped"),
        ("target_aggregation", "median"),
        ("residual_reduction", "max"),
        ("residual_sees", "action"),
        ("prior_online", "melts"),
        ("best_of", 0),
        ("solver", "heun"),
        ("path", "curved"),
    ],
)
def test_a_setting_out_of_range_is_named(setting: str, value: Any):
    with pytest.raises(DeFlowError, match=setting) as refusal:
        agent(**{setting: value}).validate()
    assert str(refusal.value).endswith(".")


def test_every_default_is_valid():
    DeFlow().validate()
    agent().validate()
