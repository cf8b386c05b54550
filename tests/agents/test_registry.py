"""Systems by name, settings as plain data, and the papers' own for every task."""

from __future__ import annotations

import json
from pathlib import Path

import equinox as eqx
import pytest

from deflow.agents.deflow import DeFlow
from deflow.agents.registry import agent_class, from_settings, preset, settings_of
from deflow.core.errors import DeFlowError
from deflow.training.task import env_name


def test_settings_make_the_same_agent_again():
    agent = DeFlow(delta=0.003, hidden=(32, 16), multiplier="fixed", freeze_prior=True)
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


def test_presets_are_the_papers_settings_for_every_state_task(shared: Path):
    tables = json.loads((shared / "reference" / "paper_tables.json").read_text())
    published = {
        row["task"]: row["DeFlow_delta"]
        for row in tables["table6"]
        if "singletask" in row["task"] and not row["task"].startswith("visual")
    }
    assert len(published) == 50
    for task, delta in published.items():
        settings = preset("deflow", env_name(task))
        agent = from_settings("deflow", settings)
        agent.validate()
        assert agent.delta == delta, task
        environment = env_name(task)
        far = ("antmaze-giant", "humanoidmaze", "antsoccer")
        assert agent.discount == (0.995 if environment.startswith(far) else 0.99), task
        careful = environment in ("antmaze-large", "antmaze-giant")
        assert agent.target_aggregation == ("min" if careful else "mean"), task
