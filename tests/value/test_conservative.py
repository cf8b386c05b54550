"""The push-down: its importance weights, its calibration by returns, and its learnt weight."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deflow.behavior.squashed import Squashed
from deflow.value.conservative import (
    Candidates,
    conservative_loss,
    excess,
    learnt_weight,
    soft_maximum,
    weight_loss,
)
from deflow.value.td import Critic, beside, td_loss

MANY = 20_000

compiled_loss = eqx.filter_jit(conservative_loss)
steepness = jax.jit(jax.grad(weight_loss))

single = partial(st.floats, width=32, allow_subnormal=False)  # Compiled code takes those for 0.


@partial(jax.jit, static_argnums=0)
def drawn(dims: int) -> tuple[Any, Any, Any]:
    """Uniform actions, and a policy's with their log-densities: [MANY, 1, dims]."""
    policy = Squashed(1, dims, (4,), key=jax.random.key(0))
    policy = eqx.tree_at(lambda p: p.net.layers[-1].bias, policy, jnp.linspace(0.4, -0.6, 2 * dims))
    uniform_key, noise_key = jax.random.split(jax.random.key(1))
    uniform = jax.random.uniform(uniform_key, (MANY, 1, dims), minval=-1)
    actions, log_probs = policy.sample(
        jnp.zeros((1, 1)), jax.random.normal(noise_key, (MANY, 1, dims))
    )
    return uniform, actions, log_probs


@pytest.mark.parametrize("slopes", [(2.0,), (1.5, -0.5), (0.0, 0.0, 0.0)])
def test_the_soft_maximum_is_the_log_of_an_integral(slopes: tuple[float, ...]):
    """Of exp(c . a) over the box: the product of 2 sinh(c) / c, whatever the policy's density."""
    uniform, actions, log_probs = drawn(len(slopes))
    q = lambda a: a @ jnp.asarray(slopes)  # noqa: E731
    found = soft_maximum(q(uniform), q(actions), log_probs, len(slopes)) - math.log(2 * MANY)
    exact = sum(math.log(2 * math.sinh(c) / c) if c else math.log(2) for c in slopes)
    assert float(found[0]) == pytest.approx(exact, abs=0.03)


def test_without_their_weights_the_policys_actions_would_count_wrongly():
    """What the test above measures is the weights: a policy on one side of the box counts as often
    as it is there."""
    uniform, actions, log_probs = drawn(1)
    q = lambda a: 2 * a[..., 0]  # noqa: E731
    wrong = soft_maximum(q(uniform), q(actions), jnp.full_like(log_probs, -math.log(2)), 1)
    exact = math.log(math.sinh(2))
    assert abs(float(wrong[0]) - math.log(2 * MANY) - exact) > 0.1


@partial(jax.jit, static_argnums=4)
def pushes(uniform: Any, policy: Any, log_probs: Any, returns: Any, dims: int) -> tuple[Any, Any]:
    """The slopes of the excess in the values of uniform actions, and of the policy's."""
    data = jnp.zeros(uniform.shape[1:])
    whole = lambda u, p: excess(data, u, p, log_probs, returns, dims).sum()  # noqa: E731
    slopes: tuple[Any, Any] = jax.grad(whole, argnums=(0, 1))(uniform, policy)
    return slopes


@given(
    values=st.lists(single(-20, 20), min_size=6, max_size=6),
    log_probs=st.lists(single(-5, 5), min_size=6, max_size=6),
    bound=single(-20, 20),
)
def test_nothing_pushes_the_policys_values_at_or_under_the_return(
    values: list[float], log_probs: list[float], bound: float
):
    q, at, line = np.float32(values), np.float32(log_probs), np.float32(bound)
    slope = np.asarray(pushes(np.zeros((2, 1)), q[:, None], at[:, None], line[None], 1)[1])[:, 0]
    under, over = q < line, q > line
    assert (slope[under] == 0).all()
    assert (slope[over] >= 0).all()
    if over.any():
        assert float(slope[over].max()) > 0


def test_where_all_values_are_under_the_return_only_the_uniform_actions_are_pushed():
    q_uniform, q_policy = jnp.full((4, 3), -1.0), jnp.full((8, 3), -1.0)
    log_probs, returns = jnp.zeros((8, 3)), jnp.full(3, 5.0)
    uniform, policy = pushes(q_uniform, q_policy, log_probs, returns, 2)
    assert (policy == 0).all()
    assert (uniform > 0).all()


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    made: dict[str, Any] = eqx.filter_jit(make_parts)()
    return made


def make_parts() -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(2), 7)
    uniform = jax.random.uniform(keys[3], (3, 8, 2), minval=-1)
    policy = jnp.tanh(jax.random.normal(keys[4], (6, 8, 2)))
    return {
        "critic": Critic(4, 2, (16,), key=keys[0]),
        "observations": jax.random.normal(keys[1], (8, 4)),
        "actions": jax.random.uniform(keys[2], (8, 2), minval=-1),
        "target": jax.random.normal(keys[5], (8,)),
        "candidates": Candidates(uniform, policy, jax.random.normal(keys[6], (6, 8))),
        "returns": jnp.linspace(-1, 1, 8),
    }


def test_the_loss_is_the_sum_of_its_parts(parts: dict[str, Any]):
    loss, metrics = compiled_loss(**parts, weight=0.3, gap=0.7)
    critic, obs, own = parts["critic"], parts["observations"], parts["candidates"]
    summed = eqx.filter_jit(partial(td_loss, over_ensemble="sum"))
    expected = float(summed(critic, obs, parts["actions"], parts["target"])[0])
    of_net = eqx.filter_jit(lambda net, actions: net(beside(obs, actions))[..., 0])
    for net in critic.nets.members:
        uniform, policy, data = (
            np.asarray(of_net(net, a), np.float64)
            for a in (own.uniform, own.policy, parts["actions"])
        )
        bounded = np.maximum(policy, parts["returns"]) - own.log_probs
        weighted = np.concatenate([uniform + 2 * math.log(2), bounded])
        push = np.log(np.exp(weighted).sum(0)) - data
        expected += 0.3 * (float(push.mean()) - 0.7)
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    values = np.asarray(eqx.filter_jit(critic)(obs, own.policy))
    under = np.mean(values < np.asarray(parts["returns"]))
    assert float(metrics["critic/under_return"]) == pytest.approx(under)


def test_without_a_weight_it_is_the_temporal_difference(parts: dict[str, Any]):
    loss, metrics = compiled_loss(**parts, weight=0.0)
    assert float(loss) == float(metrics["critic/td_loss"])


@given(log_weight=st.floats(-3, 3), found=st.floats(-4, 4), gap=st.floats(-2, 2))
def test_a_learnt_weight_rises_while_the_excess_is_over_its_gap(
    log_weight: float, found: float, gap: float
):
    slope = float(steepness(log_weight, jnp.asarray(found), gap, 5.0))
    assert slope == pytest.approx(-5 * math.exp(log_weight) * (found - gap), rel=1e-4, abs=1e-4)


def test_a_learnt_weight_is_cut():
    assert float(learnt_weight(jnp.asarray(50.0))) == 1e6
    assert float(jax.grad(learnt_weight)(jnp.asarray(50.0))) == 0
    assert float(learnt_weight(jnp.asarray(-200.0))) == 0
