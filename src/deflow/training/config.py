"""What a training run is: enough to repeat it, saved with it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from deflow.agents.registry import (
    DEFAULT_STEPS,
    from_settings,
    name_of,
    no_setting,
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
                f"The agent {agent.name} is not made to learn online; leave --online-steps."
            )
        if online and steps <= online.random_steps:
            raise DeFlowError(
                f"The first {online.random_steps:,} steps of {agent.name} are random and nothing "
                f"is learnt in them: take more than {steps:,} steps online, or a smaller "
                "--agent.random-steps."
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
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain["agent"] = {"name": name_of(self.agent), **settings_of(self.agent)}
        document: dict[str, Any] = json.loads(json.dumps(plain, default=str))
        return document

    @classmethod
    def from_json(cls, document: Any) -> TrainConfig:
        """Raises `DeFlowError` where something is missing, or of a kind that its field cannot have;
        `validate` checks the rest."""
        kinds = get_type_hints(cls)
        document = document if isinstance(document, dict) else {}
        values = {name: value for name, value in document.items() if name in kinds}
        missing = kinds.keys() - values.keys() - LATER
        agent = values.get("agent")
        if missing or not (isinstance(agent, dict) and isinstance(agent.get("name"), str)):
            lacking = ", ".join(sorted(missing)) or "the agent's name"
            raise DeFlowError(f"The configuration lacks {lacking}; take one that a run has saved.")
        for name, value in values.items():
            if not _fits(value, kinds[name]):
                raise DeFlowError(
                    f"The configuration's {name} cannot be {json.dumps(value)}; write it as in one "
                    "that a run has saved."
                )
        agent = dict(agent)
        values["agent"] = from_settings(agent.pop("name"), agent)
        values["seeds"] = tuple(values["seeds"])
        values["over"] = {name: tuple(grid) for name, grid in values["over"].items()}
        for name in ("run_dir", "data_dir"):
            values[name] = Path(values[name]) if values[name] else None
        return cls(**values)

    def differences(self, other: TrainConfig) -> list[str]:
        """The names of what the two would compute differently."""
        mine, theirs = self.to_json(), other.to_json()
        names = [n for n in mine if n not in (*LOCAL, "agent") and mine[n] != theirs[n]]
        agents = {**mine["agent"], **theirs["agent"]}
        return names + [
            f"agent.{n}" for n in agents if mine["agent"].get(n) != theirs["agent"].get(n)
        ]


def _fits(value: Any, kind: Any) -> bool:
    """Whether what JSON holds can become a value of a field's type."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple:
        return isinstance(value, list) and all(_fits(each, inner[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(each, inner[1]) for each in value.values())
    if origin is UnionType:
        return value is None or _fits(value, inner[0])
    plain: Any = {Path: str, float: (int, float), Agent: dict}.get(kind, kind)
    return isinstance(value, plain) and (kind is bool or not isinstance(value, bool))
