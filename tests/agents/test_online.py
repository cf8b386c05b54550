"""Every agent that goes on in the environment does so by the update that it was published with."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from tests.agents.online import begun, observed
from tests.compiled import once

from deflow.agents.registry import AGENTS, from_settings
from deflow.core.types import Clock, Spec

SPEC = Spec(observation_dim=4, action_dim=3, reward_range=(-1.0, 0.0), total_steps=10)

GOING_ON = {"iql", "rebrac", "ifql", "fql", "fawac", "fbrac", "floq", "deflow", "deflow-floq"}
ALONE = {"sac", "rlpd"}


def small(name: str) -> Any:
    few = {"integration_steps": 2, "noise_samples": 2, "critic_steps": 2, "samples": 2}
    agent = AGENTS[name]
    own = {key: value for key, value in few.items() if hasattr(agent, key)}
    return from_settings(name, {"hidden": (8,), "batch_size": 8, **own})


def test_those_that_learn_online_are_these():
    found = {name for name in AGENTS if small(name).online(SPEC, 5) is not None}
    assert found == GOING_ON | ALONE | {"calql"}
    assert {name for name in found if not small(name).phases(SPEC, "joint")} == ALONE
    assert [name for name in AGENTS if not AGENTS[name].needs_data] == ["sac"]
    assert {name for name in found if small(name).online(SPEC, 5).balanced} == {"rlpd", "calql"}


@pytest.mark.parametrize(
    "name",
    [
        name if name == "deflow" else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(GOING_ON | {"calql"})
    ],
)
def test_the_update_is_the_same_and_has_its_own_clock(name: str):
    own, batch = small(name), observed(SPEC, 8)
    batch.fields["next_actions"] = batch.actions
    (joint,), online = own.phases(SPEC, "joint"), own.online(SPEC, 10).phase
    assert (online.name, online.steps, online.fields) == ("online", 10, joint.fields)
    assert own.online(SPEC, 99).phase.steps == 99
    state = begun(own, SPEC)
    key, clock = jax.random.key(1), Clock(jnp.asarray(1))
    both = [
        once(phase.update)(own, state, batch, phase.draw(own, key), clock)
        for phase in (joint, online)
    ]
    assert eqx.tree_equal(*both)
