"""Rewards in units of an agent's own, and the published tasks that ask for them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.agents.online import begun, observed
from tests.compiled import once

from deflow.agents.cac import CAC
from deflow.agents.rebrac import ReBRAC
from deflow.agents.registry import from_settings, preset
from deflow.core.types import Clock, Spec

SPEC = Spec(3, 2, (-1.0, 0.0), 10)
SMALL: dict[str, Any] = {"hidden": (8,), "batch_size": 8}
FEW: dict[str, Any] = {"backup_samples": 2}


@pytest.mark.parametrize(
    "own",
    [
        ReBRAC(**SMALL, reward_scale=100.0, reward_bias=7.0),
        pytest.param(
            CAC(**SMALL, **FEW, reward_scale=100.0, reward_bias=7.0), marks=pytest.mark.slow
        ),
    ],
    ids=["rebrac", "cac"],
)
def test_losses_are_those_of_the_rewards_that_were_asked_for(own: Any):
    plain = dataclasses.replace(own, reward_scale=1.0, reward_bias=0.0)
    batch, state = observed(SPEC, 8), begun(own, SPEC)
    batch.fields["next_actions"] = batch.actions
    scaled = dataclasses.replace(batch, rewards=100 * batch.rewards + 7)
    (phase,) = own.phases(SPEC, "joint")
    noise = phase.draw(own, jax.random.key(1))

    @once
    def losses(agent: Any, batch: Any) -> Any:
        return phase.update(agent, state, batch, noise, Clock(jnp.asarray(1)))[1]

    found, expected, unscaled = losses(own, batch), losses(plain, scaled), losses(plain, batch)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    assert abs(found["critic/loss"] - unscaled["critic/loss"]) > 1


@pytest.mark.parametrize(
    ("name", "failed", "reached"), [("rebrac", 0.0, 100.0), ("cac", -2.0, 2.0)]
)
def test_on_d4rls_ant_mazes_rewards_are_the_published_ones(
    name: str, failed: float, reached: float
):
    """Those of data that hold -1 and 0."""
    for task in ("antmaze-umaze-v2", "antmaze-large-diverse-v2"):
        own: Any = from_settings(name, preset(name, task))
        assert [own.reward_scale * r + own.reward_bias for r in (-1, 0)] == [failed, reached]


def test_an_actor_may_have_a_rate_of_its_own():
    """Adam's first step is its rate, whatever the gradient is."""
    own = CAC(**SMALL, **FEW, learning_rate=1e-3, policy_learning_rate=1e-5)
    batch, state = observed(SPEC, 8), begun(own, SPEC)
    (phase,) = own.phases(SPEC, "joint")
    noise = phase.draw(own, jax.random.key(1))
    new = once(lambda: phase.update(own, state, batch, noise, Clock(jnp.asarray(1))))()[0]
    for part, rate in (("actor", 1e-5), ("critic", 1e-3)):
        before, after = (jax.tree.leaves(getattr(s, part).model) for s in (state, new))
        moved = max(float(jnp.abs(a - b).max()) for a, b in zip(after, before, strict=True))
        assert moved == pytest.approx(rate, rel=0.05)
