"""The systems by name, and their settings as plain data."""

from __future__ import annotations

import dataclasses
import difflib
import json
from importlib import resources
from typing import Any

from deflow.agents.deflow import DeFlow
from deflow.core.agent import Agent
from deflow.core.errors import DeFlowError

AGENTS: dict[str, type[Agent]] = {agent.name: agent for agent in (DeFlow,)}


def agent_class(name: str) -> type[Agent]:
    """The class of a named system; offers the nearest names where there is none."""
    if name in AGENTS:
        return AGENTS[name]
    near = difflib.get_close_matches(name, AGENTS, n=3) or sorted(AGENTS)
    raise DeFlowError(f"There is no agent {name!r}; did you mean {' or '.join(near)}?")


def settings_of(agent: Agent) -> dict[str, Any]:
    """An agent's settings as plain data."""
    return {f.name: getattr(agent, f.name) for f in dataclasses.fields(agent)}


def from_settings(name: str, settings: dict[str, Any]) -> Agent:
    """An agent from plain data; a setting that it does not have is named, with the nearest."""
    cls = agent_class(name)
    known = {f.name: f for f in dataclasses.fields(cls)}
    values = {}
    for key, value in settings.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise DeFlowError(f"The agent {name} has no setting {key!r}{hint}")
        values[key] = tuple(value) if isinstance(value, list) else value
    return cls(**values)


def preset(name: str, env_name: str) -> dict[str, Any]:
    """The published settings of an agent for an environment (`cube-double`), or none.

    Source: DeFlow Table 6 and the FQL family's shared rules for discounts and target aggregation.
    """
    agent_class(name)
    file = resources.files("deflow.agents.presets") / f"{name}.json"
    if not file.is_file():
        return {}
    table: dict[str, dict[str, Any]] = json.loads(file.read_text())
    return table.get(env_name, {})
