"""The systems by name, and their settings as plain data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from importlib import resources
from numbers import Integral, Real
from typing import Any

from deflow.agents.bc import BC
from deflow.agents.cac import CAC
from deflow.agents.calql import CalQL
from deflow.agents.decision_flow import DFDir, DFDiv
from deflow.agents.deflow import DeFlow
from deflow.agents.fawac import FAWAC
from deflow.agents.fbrac import FBRAC
from deflow.agents.floq import DeFlowFloq, Floq
from deflow.agents.fql import FQL
from deflow.agents.idql import IDQL
from deflow.agents.ifql import IFQL
from deflow.agents.iql import IQL
from deflow.agents.rebrac import ReBRAC
from deflow.agents.rlpd import RLPD
from deflow.agents.sac import SAC
from deflow.agents.srpo import SRPO
from deflow.core.agent import Agent
from deflow.core.entry import imported
from deflow.core.errors import DeFlowError, near

SYSTEMS: tuple[type[Agent], ...] = (
    BC,
    IQL,
    ReBRAC,
    IDQL,
    SRPO,
    CAC,
    FAWAC,
    FBRAC,
    IFQL,
    FQL,
    Floq,
    DeFlow,
    DeFlowFloq,
    DFDir,
    DFDiv,
    CalQL,
    RLPD,
    SAC,
)
AGENTS = {agent.name: agent for agent in SYSTEMS}


OWN = dict.fromkeys(("behavior", "value", "extraction"), "your own") | {"paper": "", "derived": ""}
"""What is known of an agent that is not one of the systems."""


def systems() -> dict[str, dict[str, str]]:
    """What each system is made of, by name: behavior, value, extraction, paper, and what of it is
    derived rather than published (empty: nothing)."""
    found: dict[str, dict[str, str]] = json.loads(
        (resources.files("deflow.agents") / "systems.json").read_text()
    )
    return found


def name_of(agent: Agent) -> str:
    """What `agent_class` finds an agent's class by: its name, or `module:Class` for your own."""
    cls = type(agent)
    return cls.name if AGENTS.get(cls.name) is cls else f"{cls.__module__}:{cls.__qualname__}"


def agent_class(name: str) -> type[Agent]:
    """The class of a named system, or of your own as `module:Class`; offers the nearest names
    where there is none."""
    if name in AGENTS:
        return AGENTS[name]
    if ":" in name:
        return _own_class(name)
    hint = near(name.lower(), AGENTS, f"there are {', '.join(AGENTS)}.", alike=0.65)
    raise DeFlowError(f"There is no agent {name!r}; {hint}")


def _own_class(name: str) -> type[Agent]:
    found = imported(name, "an agent", "Class")
    if not (isinstance(found, type) and issubclass(found, Agent)):
        raise DeFlowError(f"{name} is no class of deflow.Agent; derive one from it.")
    return found


def settings_of(agent: Agent) -> dict[str, Any]:
    """An agent's settings as plain data."""
    return {f.name: getattr(agent, f.name) for f in dataclasses.fields(agent)}


def plain(agent: Agent) -> Agent:
    """The same agent, with Python's own numbers where numpy's were given.

    Raises `DeFlowError` where a setting is of another kind than its default.
    """
    values = {
        f.name: _as_setting(type(agent).name, f.name, getattr(agent, f.name), f.default)
        for f in dataclasses.fields(agent)
        if f.default is not dataclasses.MISSING
    }
    changed = {n: value for n, value in values.items() if value is not getattr(agent, n)}
    return dataclasses.replace(agent, **changed) if changed else agent


def from_settings(name: str, settings: dict[str, Any]) -> Agent:
    """An agent from plain data; a setting that it does not have is named, with the nearest."""
    cls = agent_class(name)
    known = {f.name: f for f in dataclasses.fields(cls)}
    values = {}
    for key, value in settings.items():
        if key not in known:
            raise no_setting(name, key, known)
        values[key] = _as_setting(name, key, value, known[key].default)
    return cls(**values)


def no_setting(name: str, key: str, known: Iterable[str]) -> DeFlowError:
    """What is said of a setting that an agent has not, with the nearest that it has."""
    hint = near(key, known, f"`deflow agents {name}` lists them.", most=1)
    return DeFlowError(f"The agent {name} has no setting {key!r}; {hint}")


def _as_setting(name: str, key: str, value: Any, default: Any) -> Any:
    """The value in the type of the setting's default; plain data know neither tuples nor that 3
    may be a fraction."""
    if isinstance(value, list):
        value = tuple(value)
    if type(value) is not bool:  # Which Python holds for a whole number.
        if type(default) is float and isinstance(value, Real):
            value = float(value)
        if type(default) is int and isinstance(value, Integral):
            value = int(value)
    if type(value) is not type(default) and default is not None:
        wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
        kind = wanted.get(type(default), "a list")
        raise DeFlowError(f"The setting {key} of {name} takes {kind}, but it is {value!r}.")
    return value


DEFAULT_STEPS = 1_000_000
"""Gradient steps where nothing is published."""


def published(name: str) -> dict[str, dict[str, Any]]:
    """What is published for an agent, by environment: settings, and beside them `steps`, and as
    `online` the settings that differ where the run went on in the environment.

    Each file of `presets/` names its sources; keys that begin with an underscore are remarks.
    """
    file = resources.files("deflow.agents.presets") / f"{name}.json"
    if not file.is_file():
        return {}
    table = _without_remarks(json.loads(file.read_text()))
    return {env_name: _without_remarks(entry) for env_name, entry in table.items()}


def _without_remarks(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if not key.startswith("_")}


def preset(name: str, env_name: str, online: bool = False) -> dict[str, Any]:
    """The published settings of an agent for an environment (`cube-double`), or none; with
    `online`, those of the runs that went on in the environment."""
    agent_class(name)
    entry = dict(published(name).get(env_name, {}))
    further = entry.pop("online", {})
    settings = {**entry, **further} if online else entry
    return {key: value for key, value in settings.items() if key != "steps"}


def published_steps(name: str, env_name: str, online: bool = False) -> int | None:
    """The gradient steps on data that an agent is published with for an environment, with `online`
    before it goes on there; None if it is not."""
    agent_class(name)
    entry = published(name).get(env_name, {})
    steps: int | None = entry.get("steps")
    return entry.get("online", {}).get("steps", steps) if online else steps


def usual_steps(name: str, env_name: str, online: bool = False) -> int:
    """The published steps, or where there are none `DEFAULT_STEPS`."""
    return published_steps(name, env_name, online) or DEFAULT_STEPS
