"""Every critic on a chain whose values are known."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from tests.agents.small import CHAIN_DISCOUNT, CHAIN_VALUES, SIZES, chain, train

from deflow.agents.floq import Floq
from deflow.agents.fql import FQL
from deflow.agents.iql import IQL
from deflow.agents.rebrac import ReBRAC
from deflow.core.agent import Agent

SETTINGS: dict[str, Any] = {**SIZES, "discount": CHAIN_DISCOUNT, "learning_rate": 1e-3}
FEW: dict[str, Any] = {
    "critic_depth": 2,
    "critic_steps": 4,
    "noise_samples": 2,
    "integration_steps": 2,
}


@pytest.mark.parametrize(
    "agent",
    [
        FQL(**SETTINGS),
        pytest.param(IQL(**SETTINGS), marks=pytest.mark.slow),
        pytest.param(ReBRAC(**SETTINGS, alpha_critic=0.0), marks=pytest.mark.slow),
        pytest.param(Floq(**SETTINGS, **FEW), marks=pytest.mark.slow),
    ],
    ids=["ensemble", "expectile", "rebrac", "flow"],
)
def test_values_of_the_chain(agent: Agent):
    found = train(agent, chain(), 2000)
    actions = jnp.zeros((3, 2))
    values = found.each(lambda agent, state: agent.value(state, jnp.eye(3), actions))
    np.testing.assert_allclose(values, np.tile(CHAIN_VALUES, (3, 1)), atol=0.12)


@pytest.mark.slow
def test_the_penalty_on_next_actions_lowers_rebracs_values():
    """Actions of the data are uniform, so that a penalty always costs something, but at the end."""
    found = train(ReBRAC(**SETTINGS, alpha_critic=1.0), chain(), 2000)
    actions = jnp.zeros((3, 2))
    values = found.each(lambda agent, state: agent.value(state, jnp.eye(3), actions))
    np.testing.assert_allclose(values[:, 2], -1.0, atol=0.12)
    assert (values[:, 0] < CHAIN_VALUES[0] - 0.3).all()
