"""Consistency-AC's targets, its averaged actor and its actions, and that it raises Q."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array
from tests.compiled import once

from deflow.agents.cac import CAC, ActNoise, CACState
from deflow.behavior.consistency import sample_actions
from deflow.core.errors import DeFlowError
from deflow.core.types import Batch, Clock, Spec
from deflow.nn.learner import polyak

SPEC = Spec(observation_dim=3, action_dim=2, reward_range=(-1.0, 0.0), total_steps=100)
SMALL: dict[str, Any] = {"hidden": (16, 16), "batch_size": 8, "backup_samples": 3, "act_samples": 4}


def agent(**options: Any) -> CAC:
    return CAC(**{**SMALL, **options})


critic_gradient = once(CAC.critic_gradient)


class Linear(eqx.Module):
    """Two critics, w . a each."""

    slopes: Array

    def __call__(self, observations: Array, actions: Array) -> Array:
        q: Array = jnp.einsum("ca,...a->c...", self.slopes, actions)
        return q


@pytest.fixture(scope="module")
def batch() -> Batch:
    keys = jax.random.split(jax.random.key(1), 4)
    return Batch(
        observations=jax.random.normal(keys[0], (8, 3)),
        actions=jax.random.uniform(keys[1], (8, 2), minval=-1),
        rewards=-jax.random.uniform(keys[2], (8,)),
        masks=(jnp.arange(8) % 4 > 0).astype(jnp.float32),
        next_observations=jax.random.normal(keys[3], (8, 3)),
    )


@pytest.fixture(scope="module")
def state() -> CACState:
    """Networks whose averages stand apart from them."""
    apart = lambda tree: jax.tree.map(lambda leaf: 0.9 * leaf + 0.01, tree)  # noqa: E731

    @once
    def moved() -> CACState:
        begun = agent().init(jax.random.key(2), SPEC)
        averages = apart(begun.target_critic), apart(begun.ema_actor)
        return eqx.tree_at(lambda s: (s.target_critic, s.ema_actor), begun, averages)

    return moved()


# Critics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalized", [False, True])
def test_the_target_takes_each_critics_best_action_and_then_the_smaller(
    state: CACState, batch: Batch, normalized: bool
):
    own = agent(normalize_target=normalized)
    actions = jax.random.uniform(jax.random.key(3), (3, 8, 2), minval=-1)
    _, metrics = critic_gradient(own, state, batch, actions)
    values = once(lambda critic, obs, actions: critic(obs, actions))
    each = np.stack(
        [values(state.target_critic, batch.next_observations, a) for a in actions], axis=1
    )
    next_q = each.max(1).min(0)
    target = np.asarray(batch.rewards + 0.99 * batch.masks * next_q)
    if normalized:
        target = target / (target.std(ddof=1) + 1e-6)
    q = np.asarray(values(state.critic.model, batch.observations, batch.actions))
    expected = ((q[0] - target) ** 2).mean() + ((q[1] - target) ** 2).mean()
    np.testing.assert_allclose(metrics["critic/loss"], expected, rtol=1e-4)


def test_a_coin_names_the_critic_that_is_raised_and_the_other_is_its_unit():
    q = jnp.asarray([[1.0, 3.0], [-4.0, -6.0]])
    own = agent()
    np.testing.assert_allclose(own.raised(q, jnp.asarray(True)), [0.2, 0.6], rtol=1e-6)
    np.testing.assert_allclose(own.raised(q, jnp.asarray(False)), [-2.0, -3.0], rtol=1e-6)
    plain = agent(normalize_q=False)
    np.testing.assert_allclose(plain.raised(q, jnp.asarray(False)), [-4.0, -6.0])
    slope = jax.grad(lambda q: own.raised(q, jnp.asarray(True)).sum())(q)
    np.testing.assert_allclose(slope, [[0.2, 0.2], [0.0, 0.0]], rtol=1e-6)


def test_both_sides_of_the_coin_are_drawn():
    coin = once(lambda key: agent().draw_update(key, SPEC).coin)
    coins = [coin(jax.random.key(i)) for i in range(12)]
    assert {bool(coin) for coin in coins} == {False, True}


# One update ------------------------------------------------------------------------------------


def test_an_update_takes_its_targets_from_the_averaged_actor_and_cuts_each_gradient(
    state: CACState, batch: Batch
):
    noise = agent().draw_update(jax.random.key(4), SPEC)
    own = agent(grad_clip=1e-3)

    @once
    def found(state: CACState) -> Any:
        return own.gradients(state, batch, noise, Clock(jnp.asarray(30)), ramp=100)

    grads, metrics = found(state)
    stepped = once(own.stepped)(state, grads, Clock(jnp.asarray(30)))
    for name in ("actor", "critic"):
        first_moment = optax.tree_utils.tree_get(getattr(stepped, name).moments, "mu")
        np.testing.assert_allclose(optax.tree.norm(first_moment), 0.1 * 1e-3, rtol=1e-3)
        assert optax.tree.norm(grads[name]) > 1e-2
    sampled = once(sample_actions)
    next_actions = sampled(state.ema_actor, batch.next_observations, noise.target)
    _, expected = critic_gradient(agent(), state, batch, next_actions)
    np.testing.assert_allclose(metrics["critic/loss"], expected["critic/loss"], rtol=1e-4)
    same_average = eqx.tree_at(lambda s: s.ema_actor, state, state.actor.model)
    assert not np.allclose(found(same_average)[1]["critic/loss"], metrics["critic/loss"])
    expected_loss = metrics["actor/clone_loss"] + metrics["actor/q_loss"]
    np.testing.assert_allclose(metrics["actor/loss"], expected_loss, rtol=1e-5)


def test_the_averaged_actor_moves_at_every_fifth_step_after_a_thousand(state: CACState):
    own = agent()
    grads = {"actor": (), "critic": ()}
    averaged = once(lambda step: own.averaged(state, grads, Clock(step))["ema_actor"])
    moved = once(polyak)(state.ema_actor, state.actor.model, 0.005)
    for step, due in [(0, False), (995, False), (1000, True), (1001, False), (1005, True)]:
        found = averaged(jnp.asarray(step))
        for one, other in zip(
            jax.tree.leaves(found), jax.tree.leaves(moved if due else state.ema_actor), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_a_family_shares_the_branch(state: CACState):
    """Under `vmap` over members the clock is not batched, so no member pays for idle averaging."""
    grads = {"actor": (), "critic": ()}
    family = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)
    over = jax.vmap(lambda s, step: agent().averaged(s, grads, Clock(step)), in_axes=(0, None))
    assert " cond[" in str(jax.make_jaxpr(over)(family, jnp.asarray(3)))


# Acting ----------------------------------------------------------------------------------------


def test_actions_are_drawn_by_a_softmax_of_the_smaller_target(state: CACState):
    slopes = jnp.asarray([[1.0, 0.5], [2.0, -1.0]])
    known = eqx.tree_at(lambda s: s.target_critic, state, Linear(slopes))
    count, own = 4000, agent()
    drawn = own.draw_act(jax.random.key(5), SPEC)
    gumbel = jax.random.gumbel(jax.random.key(6), (count, 4))
    each = jnp.broadcast_to(drawn.samples, (count, *drawn.samples.shape))
    observations = jnp.zeros((count, 3))
    taken = once(own.act)(known, observations, ActNoise(each, gumbel))
    noise = jnp.moveaxis(drawn.samples, -2, 0)
    candidates = np.asarray(once(sample_actions)(state.actor.model, observations[0], noise))
    q = (candidates @ np.asarray(slopes).T).min(-1)
    expected = np.exp(q) / np.exp(q).sum()
    hit = (np.abs(np.asarray(taken)[:, None] - candidates) < 1e-5).all(-1)
    np.testing.assert_allclose(hit.sum(1), 1)
    np.testing.assert_allclose(hit.mean(0), expected, atol=0.03)
    assert expected.max() - expected.min() > 0.1


# Training --------------------------------------------------------------------------------------

BANDIT = Spec(observation_dim=1, action_dim=1, reward_range=(-1.0, 1.0), total_steps=600)
ETAS = (0.0, 30.0)


@pytest.fixture(scope="module")
def rewards() -> np.ndarray:
    """[eta, seed]: mean reward a of what the actor samples after training on a ~ U(-0.9, 0.9)."""
    base = CAC(
        hidden=(32, 32),
        batch_size=64,
        backup_samples=1,
        ema_start=0,
        ema_every=1,
        ema_decay=0.9,
        curriculum_steps=12000,
        learning_rate=3e-3,
    )
    (phase,) = base.phases(BANDIT, "joint")

    @jax.jit
    @jax.vmap
    def trained(eta: Array, key: Array) -> Array:
        own = eqx.tree_at(lambda a: a.eta, base, eta)
        init_key, key = jax.random.split(key)

        def step(state: CACState, index: Array) -> tuple[CACState, None]:
            data_key, noise_key = jax.random.split(jax.random.fold_in(key, index))
            actions = jax.random.uniform(data_key, (64, 1), minval=-0.9, maxval=0.9)
            nothing = jnp.zeros((64, 1))
            batch = Batch(nothing, actions, actions[:, 0], jnp.zeros(64), nothing)
            noise = phase.draw(own, noise_key)
            return phase.update(own, state, batch, noise, Clock(index))[0], None

        state, _ = jax.lax.scan(step, own.init(init_key, BANDIT), jnp.arange(600))
        noise = jax.random.normal(key, (2, 512, 1))
        return sample_actions(state.actor.model, jnp.zeros((512, 1)), noise).mean()

    keys = jax.random.split(jax.random.key(0), 3)
    etas = jnp.repeat(jnp.asarray(ETAS), 3)
    found = trained(etas, jnp.concatenate([keys, keys]))
    return np.asarray(found).reshape(2, 3)


@pytest.mark.parametrize("seed", range(3))
def test_the_actor_raises_q(rewards: np.ndarray, seed: int):
    cloned, raised = rewards[:, seed]
    assert abs(cloned) < 0.25
    assert raised > cloned + 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [("eta", -1.0), ("grad_clip", 0.0), ("ema_decay", 1.0), ("sampling_steps", 0)],
)
def test_a_setting_out_of_range_is_named(name: str, value: Any):
    with pytest.raises(DeFlowError, match=name):
        agent(**{name: value}).validate()
