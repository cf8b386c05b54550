"""Systems by name, settings as plain data, and the papers' own for every task."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import equinox as eqx
import pytest

from deflow.agents.deflow import DeFlow
from deflow.agents.registry import agent_class, from_settings, preset, settings_of
from deflow.core.errors import DeFlowError


def test_settings_make_the_same_agent_again():
    agent = DeFlow(delta=0.003, hidden=(32, 16), multiplier_form="linear", prior_online="frozen")
    plain = json.loads(json.dumps(settings_of(agent)))
    assert eqx.tree_equal(from_settings("deflow", plain), agent)


def test_an_unknown_setting_is_named_beside_the_nearest():
    with pytest.raises(DeFlowError, match=r"no setting 'detla'; did you mean delta\?"):
        from_settings("deflow", {"detla": 0.1})
    with pytest.raises(DeFlowError, match="no setting 'zzz'"):
        from_settings("deflow", {"zzz": 1})


def test_an_unknown_agent_is_named_beside_the_nearest():
    with pytest.raises(DeFlowError, match=r"no agent 'deflwo'; did you mean deflow\?"):
        agent_class("deflwo")
    with pytest.raises(DeFlowError, match="deflow"):
        preset("zzz", "cube-single")


def test_an_environment_without_published_settings_has_none():
    assert preset("deflow", "my-own-task") == {}


@pytest.mark.parametrize("widths", [(), ("a",), (8.5,), (8, True), 8])
@pytest.mark.parametrize("name", ["rlpd", "fql", "floq"])
def test_widths_that_are_none_are_named(name: str, widths: Any):
    agent = dataclasses.replace(from_settings(name, {}), hidden=widths)
    with pytest.raises(DeFlowError, match=r"hidden must be whole numbers like \d+,\d+"):
        agent.validate()


def test_an_actor_of_the_critics_widths_names_none():
    from_settings("iql", {"actor_hidden": ()}).validate()
