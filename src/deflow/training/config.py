"""What a training run is: enough to repeat it, saved with it."""

from __future__ import annotations

import dataclasses
import functools
import json
import operator
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from deflow.agents.registry import (
    DEFAULT_STEPS,
    from_settings,
    name_of,
    no_setting,
    plain,
    settings_of,
)
from deflow.core.agent import ONLINE, Agent, Online, Phase
from deflow.core.checks import require
from deflow.core.errors import DeFlowError
from deflow.core.types import Spec
from deflow.training.family import members_of

LOCAL = ("run_dir", "data_dir", "workers", "keep_checkpoints", "env_patience")
"""Fields that say where and how a run is carried out, not what it computes."""

LATER = {"online_steps", "updates_per_step", "overwrite", "env_patience"}
"""Fields that older configurations have not; their defaults are what those runs did."""

ANYTHING = Spec(1, 1, (-1.0, 0.0), 1)
"""Some task, for questions whose answer does not depend on it."""


@dataclass(frozen=True)
class TrainConfig:
    """The configuration of a family of runs on one task.

    `schedule` names one of the agent's own; empty, the published one. After its `steps` on the
    data it goes on for `online_steps` in the environment. `checkpoint_every` of 0 is a tenth of a
    phase, 100,000 steps at most, and in whole chunks but for the online one.

    Numbers become Python's own, so that the configuration can be saved and read back, and a path
    may begin with ~. Raises `DeFlowError` where a value is of another kind than its field.
    """

    task: str
    agent: Agent
    seeds: tuple[int, ...] = (0,)
    over: dict[str, tuple[float, ...]] = field(default_factory=dict)
    steps: int = DEFAULT_STEPS
    online_steps: int = 0
    updates_per_step: int = 1
    overwrite: bool = False
    schedule: str = ""
    share_flow: bool = False
    flow_from: str | None = None
    env: str | None = None
    eval_every: int = 100_000
    eval_episodes: int = 50
    eval_seed: int = 0
    log_every: int = 1000
    checkpoint_every: int = 0
    chunk: int = 100
    run_dir: Path | None = None
    data_dir: Path | None = None
    workers: int = 0
    keep_checkpoints: int = 2
    env_patience: float = 60.0

    def __post_init__(self) -> None:
        for name, kind in _kinds().items():
            given = getattr(self, name)
            try:
                object.__setattr__(self, name, _as_kind(given, kind))
            except (TypeError, ValueError, OverflowError) as error:
                raise DeFlowError(
                    f"The configuration's {name} must be {_wanted(name, kind)}, but it is "
                    f"{given!r}."
                ) from error
        object.__setattr__(self, "agent", plain(self.agent))
        if self.flow_from:
            object.__setattr__(self, "flow_from", os.path.expanduser(self.flow_from))
        if not self.schedule:
            object.__setattr__(self, "schedule", self.agent.schedules[0])

    def validate(self) -> None:
        """Raise `DeFlowError` where a number is out of range or a swept setting cannot vary."""
        for name in ("steps", "updates_per_step", "eval_every", "log_every", "chunk"):
            require(name, getattr(self, name), at_least=1)
        require("checkpoint_every", self.checkpoint_every, at_least=0)
        require("online_steps", self.online_steps, at_least=0)
        require("env_patience", self.env_patience, above=0)
        require("eval_episodes", self.eval_episodes, at_least=0)
        require("eval_seed", self.eval_seed, at_least=0, below=2**32)
        require("workers", self.workers, at_least=0)
        require("keep_checkpoints", self.keep_checkpoints, at_least=1)
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise DeFlowError(
                f"--seeds must name each seed once, but it is {' '.join(map(str, self.seeds))}."
            )
        if not all(0 <= seed < 2**32 for seed in self.seeds):
            raise DeFlowError("--seeds must be whole numbers from 0 up, below 2^32.")
        if self.schedule not in self.agent.schedules:
            raise DeFlowError(
                f"The agent {self.agent.name} is trained {' or '.join(self.agent.schedules)}, not "
                f"{self.schedule!r}."
            )
        if (self.share_flow or self.flow_from) and self.schedule not in self._sharing():
            some = " or ".join(self._sharing())
            remedy = f"can be shared only with --schedule {some}" if some else "cannot be shared"
            raise DeFlowError(
                f"The flow of {self.agent.name} {remedy}: otherwise each run's is learnt beside "
                "its critic."
            )
        fields = {f.name: f.default for f in dataclasses.fields(self.agent)}
        numeric = {name for name, default in fields.items() if isinstance(default, float)}
        for name in self.over:
            if name not in fields:
                raise no_setting(self.agent.name, name, fields)
            if name not in numeric:
                raise DeFlowError(
                    f"The setting {name} cannot vary inside a family; those that can are "
                    f"{', '.join(sorted(numeric))}."
                )
        lost = [name for name in self.over if name in self.agent.behavior_settings]
        if lost and (self.share_flow or self.flow_from):
            raise DeFlowError(
                f"The setting {lost[0]} is the behaviour's alone, and all members have one: leave "
                f"--over {lost[0]}, or {'--share-flow' if self.share_flow else '--flow-from'}."
            )
        self.agent.validate()
        self._check_online()
        for name, values in self.over.items():
            if not values or len(set(values)) != len(values):
                raise DeFlowError(f"--over must give {name} each of its values once.")
            for value in values:
                replace(self.agent, **{name: value}).validate()
        self._check_labels()
        self._check_columns()

    def phases(self, spec: Spec) -> tuple[Phase, ...]:
        """The agent's phases, and the online one, if there is one, at the end."""
        online = self.online(spec)
        phases = self.agent.phases(spec, self.schedule)
        return (*phases, online.phase) if online else phases

    def online(self, spec: Spec) -> Online | None:
        """The online phase, its steps those of the environment; None where there is none."""
        updates = self.online_steps * self.updates_per_step
        found = self.agent.online(spec, updates) if updates else None
        return found and replace(
            found, phase=replace(found.phase, name=ONLINE, steps=self.online_steps)
        )

    def _check_labels(self) -> None:
        """Members go by their labels, in which a value has six digits."""
        labels = [member.label for member in members_of(self.seeds, self.over)]
        for label in labels:
            if labels.count(label) > 1:
                raise DeFlowError(
                    f"Two members of the run would be called {label}: give --over values that "
                    "differ in their first six digits."
                )

    def _check_columns(self) -> None:
        """Columns of the data are made once for all members."""
        columns = {name for p in self.phases(ANYTHING) for name in p.fields}
        for name, values in self.over.items():
            varied = [replace(self.agent, **{name: value}) for value in values]
            for column in columns:
                found = [agent.column_settings(column) for agent in varied]
                if any(each != found[0] for each in found):
                    raise DeFlowError(
                        f"The setting {name} cannot vary inside a family, since the data's "
                        f"{column} depend on it; train a run for each of its values."
                    )

    def _check_online(self) -> None:
        agent, steps = self.agent, self.online_steps
        online = agent.online(ANYTHING, steps) if steps else None
        if steps and online is None:
            raise DeFlowError(
                f"The agent {agent.name} is not made to learn online: train it on data alone, or "
                "take one that is, such as deflow."
            )
        if online and steps <= online.random_steps:
            raise DeFlowError(
                f"The first {online.random_steps:,} steps of {agent.name} are random and nothing "
                f"is learnt in them: take more than {steps:,} steps online, or a smaller "
                "random_steps among its settings."
            )
        if not self.online_steps and not agent.phases(ANYTHING, self.schedule):
            raise DeFlowError(f"The agent {agent.name} learns online alone: give --online-steps.")

    def _sharing(self) -> list[str]:
        """Schedules that train a behaviour by itself, which may then serve several runs."""
        agent = self.agent
        return [
            schedule
            for schedule in agent.schedules
            if any(phase.graft for phase in agent.phases(ANYTHING, schedule))
        ]

    def to_json(self) -> dict[str, Any]:
        """A plain document; `from_json` reads it back."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["agent"] = {"name": name_of(self.agent), **settings_of(self.agent)}
        document: dict[str, Any] = json.loads(json.dumps(values, default=str))
        return document

    @classmethod
    def from_json(cls, document: Any) -> TrainConfig:
        """Raises `DeFlowError` where something is missing, or of a kind that its field cannot have;
        `validate` checks the rest."""
        kinds = _kinds()
        document = document if isinstance(document, dict) else {}
        values = {name: value for name, value in document.items() if name in kinds}
        missing = kinds.keys() - values.keys() - LATER
        agent = values.get("agent")
        if missing or not (isinstance(agent, dict) and isinstance(agent.get("name"), str)):
            lacking = ", ".join(sorted(missing)) or "the agent's name"
            raise DeFlowError(f"The configuration lacks {lacking}; take one that a run has saved.")
        agent = dict(agent)
        values["agent"] = from_settings(agent.pop("name"), agent)
        return cls(**values)

    def differences(self, other: TrainConfig) -> list[str]:
        """The names of what the two would compute differently."""
        mine, theirs = self.to_json(), other.to_json()
        names = [n for n in mine if n not in (*LOCAL, "agent") and mine[n] != theirs[n]]
        agents = {**mine["agent"], **theirs["agent"]}
        return names + [
            f"agent.{n}" for n in agents if mine["agent"].get(n) != theirs["agent"].get(n)
        ]


@functools.cache
def _kinds() -> dict[str, Any]:
    return get_type_hints(TrainConfig)


def _whole(value: Any) -> int:
    """A whole number as Python's own, also numpy's and 1e5; else `TypeError` or `ValueError`."""
    if isinstance(value, bool | str):
        raise TypeError
    try:
        return operator.index(value)
    except TypeError:
        if not float(value).is_integer():
            raise ValueError from None
        return int(value)


def _as_kind(value: Any, kind: Any) -> Any:
    """The value as one of a field's type; `TypeError` or `ValueError` where it cannot be one."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None else _as_kind(value, inner[0])
    if origin is dict and isinstance(value, Mapping):
        return {name: _as_kind(each, inner[1]) for name, each in value.items()}
    if origin is tuple and isinstance(value, Iterable) and not isinstance(value, str | Mapping):
        return tuple(_as_kind(each, inner[0]) for each in value)
    if kind is int:
        return _whole(value)
    if kind is float and not isinstance(value, bool | str):
        return float(value)
    if kind is Path and isinstance(value, str | Path):
        return Path(os.path.expanduser(value))
    if kind is str and isinstance(value, str | Path):
        return str(value)
    if origin is None and kind is not float and isinstance(value, kind):
        return value
    raise TypeError


def _wanted(name: str, kind: Any) -> str:
    """What a field takes, in words."""
    if name == "env":
        return "written as 'module:make', or an environment's id"
    inner = get_args(kind)
    words = {
        int: "a whole number",
        float: "a number",
        bool: "True or False",
        Agent: "an agent",
        tuple: "several whole numbers, such as [0, 1]",
        dict: 'several values for each name, such as {"delta": [0.001, 0.01]}',
    }
    kind = inner[0] if get_origin(kind) is UnionType else get_origin(kind) or kind
    return words.get(kind, "a path" if kind is Path or name == "flow_from" else "a word")
