"""`deflow agents`: every system with what it is made of, every setting with its meaning."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from deflow.agents.registry import AGENTS, systems
from deflow.cli import main
from deflow.cli.agents import settings_of_class

Printed = Callable[..., Any]
Refused = Callable[..., str]


def test_every_system_says_what_it_is_made_of(printed: Printed):
    document = printed("agents", "--json")
    assert [system["name"] for system in document] == list(AGENTS)
    for system in document:
        for part in ("behavior", "value", "extraction", "paper"):
            assert system[part], (system["name"], part)
        assert "arXiv" in system["paper"]


def test_nothing_of_decision_flow_is_called_published():
    assert all("every loss" in systems()[name]["derived"] for name in ("df-dir", "df-div"))


def test_the_table_holds_every_system(capsys: pytest.CaptureFixture[str]):
    assert main.run(["agents"]) == 0
    out = capsys.readouterr().out
    assert all(f" {name} " in out for name in AGENTS)
    assert "backpropagation," in out, "no word is broken at 80 columns"
    assert max(map(len, out.splitlines())) <= 80
    for system in systems().values():
        assert all(word in out for word in system["derived"].split())


@pytest.mark.parametrize("name", AGENTS)
def test_every_setting_has_a_meaning_and_a_default(name: str, printed: Printed):
    document = printed("agents", name, "--json")
    fields = dataclasses.fields(AGENTS[name])
    assert [setting["name"] for setting in document["settings"]] == [f.name for f in fields]
    assert document["schedules"] == list(AGENTS[name].schedules)
    for setting, field in zip(document["settings"], fields, strict=True):
        assert setting["meaning"].endswith((".", ")")), setting["name"]
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        assert setting["default"] == default
        assert setting["sweep"] is isinstance(field.default, float)


def test_ranges_and_choices_are_said_in_words():
    found = {setting["name"]: setting for setting in settings_of_class(AGENTS["deflow"])}
    assert found["delta"]["range"] == "above 0"
    assert found["discount"]["range"] == "above 0 and below 1"
    assert found["batch_size"]["range"] == "at least 1"
    assert found["penalty"]["range"] == "raw or applied"
    assert found["prior_online"]["range"] == "learns or frozen or coasting"
    assert found["normalize_q"]["range"] == "True or False"
    assert found["delta"]["sweep"]
    assert not found["hidden"]["sweep"]


def test_the_meaning_is_that_of_the_nearest_class():
    """IFQL states `best_of` again, with another meaning than the flow agents it builds on."""
    found = {s["name"]: s["meaning"] for s in settings_of_class(AGENTS["ifql"])}
    assert "N of Table 6" in found["best_of"]
    assert found["integration_steps"] == "Steps from noise to an action."


def test_a_table_of_settings_is_printed(capsys: pytest.CaptureFixture[str]):
    assert main.run(["agents", "deflow"]) == 0
    out = capsys.readouterr().out
    assert "2601.10471" in out
    assert all(field.name in out for field in dataclasses.fields(AGENTS["deflow"]))


def test_an_unknown_system_is_refused_with_the_nearest(refused: Refused):
    assert "no agent 'rebrak'; did you mean rebrac?" in refused("agents", "rebrak")
    assert "there are bc," in refused("agents", "zzz")
