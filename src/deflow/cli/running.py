"""The options that `compare` and `sweep` share, and their reading."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from deflow.cli.options import TrainingOptions
from deflow.core.errors import DeFlowError

if TYPE_CHECKING:
    from deflow.core.agent import Agent
    from deflow.training.config import TrainConfig

Words = tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]]
"""An option that takes several words and may be given again."""


@dataclass(kw_only=True)
class Running(TrainingOptions):
    """One task, several families: what the runs of one call have in common."""

    task: tyro.conf.Positional[str]
    """A task of OGBench or D4RL; with --data, any name."""
    hidden: tuple[int, ...] = ()
    """Widths of the hidden layers (default: the agent's own)."""
    settings: Annotated[Words, tyro.conf.arg(name="set")] = ()
    """Settings of an agent, each as agent.setting=value, or setting=value where there is one agent;
    several numbers as 256,256."""
    out: Path | None = None
    """The folder of it all; what is trained in it already is kept."""

    def made(self, label: str, name: str) -> Agent:
        """The named agent with its preset, --hidden, and what --set says of `label`."""
        from deflow.agents.registry import from_settings, preset, settings_of
        from deflow.training.task import env_name

        online = self.online_steps > 0
        published = preset(name, env_name(self.task), online) if self.preset == "paper" else {}
        agent = from_settings(
            name, {**published, **({"hidden": self.hidden} if self.hidden else {})}
        )
        if self.preset == "paper" and self.data is None:
            say_where_nothing_is_published(agent, self.task)
        own = {
            setting: like(settings_of(agent).get(setting, value), value, place)
            for setting, (place, value) in self.set_for(label).items()
        }
        return from_settings(name, {**settings_of(agent), **own})

    def set_for(self, label: str) -> dict[str, tuple[str, str]]:
        """The settings of that agent which --set gives, each as it was written and its value."""
        found = {}
        for place, value in pairs(self.settings, "--set", "agent.setting=value"):
            owner, _, setting = place.rpartition(".")
            if owner in ("", label):
                found[setting] = (place, value)
        return found

    def config(self, agent: Agent, run_dir: Path, **options: Any) -> TrainConfig:
        """The run's configuration."""
        from deflow.training.config import TrainConfig

        options.setdefault("steps", self._usual_steps(agent) if self.steps is None else self.steps)
        names = {f.name for f in dataclasses.fields(TrainConfig)}
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        shared = {name: value for name, value in shared.items() if name in names}
        return TrainConfig(**{**shared, "agent": agent, "run_dir": run_dir, **options})

    def _usual_steps(self, agent: Agent) -> int:
        """The steps on data that the agent is published with for the task, else a default."""
        from deflow.agents.registry import DEFAULT_STEPS, name_of, usual_steps
        from deflow.training.task import env_name

        if self.preset == "none":
            return DEFAULT_STEPS
        return usual_steps(name_of(agent), env_name(self.task), self.online_steps > 0)

    def check_owners(self, labels: Collection[str]) -> None:
        """Raise `DeFlowError` where --set speaks of an agent that is not among `labels`."""
        places = [place for place, _ in pairs(self.settings, "--set", "agent.setting=value")]
        check_names([place.rpartition(".")[0] for place in places], labels, "--set")


def say_where_nothing_is_published(agent: Agent, task: str) -> None:
    """A sentence for the user of an agent that no paper, and no derivation of ours, has settings of
    for the task."""
    from deflow.agents.registry import name_of, published_steps
    from deflow.core.progress import console
    from deflow.training.source import source
    from deflow.training.task import env_name

    env = env_name(source(task).name if agent.needs_data else task)
    if published_steps(name_of(agent), env) is None:
        console.print(
            f"Nothing is published of {agent.name} for {env}: what is not given is a plain default."
        )


def pairs(words: Iterable[Iterable[str]], option: str, form: str) -> list[tuple[str, str]]:
    """The words of an option as names and values, at the first equals sign; no name twice."""
    found: dict[str, str] = {}
    for word in (word for group in words for word in group):
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise DeFlowError(f"{option} takes {form}, but it is {word!r}.")
        if name in found:
            raise DeFlowError(f"{option} names {name} more than once: give it once, as {form}.")
        found[name] = value
    return list(found.items())


def check_names(names: Iterable[str], labels: Collection[str], option: str) -> None:
    """Raise `DeFlowError` at the first name that is none of the agents here; where there is one
    agent alone, it need not be named."""
    for name in names:
        if not name and len(labels) > 1:
            raise DeFlowError(f"{option} must say whose setting it is, as agent.setting=value.")
        if name and name not in labels:
            raise DeFlowError(
                f"{option} speaks of {name!r}, but the agents here are {', '.join(labels)}."
            )


def whole(text: str, what: str) -> int:
    """A whole number, or `DeFlowError`."""
    try:
        return int(text)
    except ValueError as error:
        raise DeFlowError(f"{what} must be a whole number, but it is {text!r}.") from error


def numbers(text: str, what: str) -> tuple[float, ...]:
    """Numbers with commas between them, or `DeFlowError`."""
    try:
        return tuple(map(float, text.split(",")))
    except ValueError as error:
        raise DeFlowError(f"{what} takes numbers, as value,value,..., not {text!r}.") from error


def grid(over: Words) -> dict[str, tuple[float, ...]]:
    """The words of --over, `delta=0.001,0.003`, as settings and their values."""
    form = "name=value,value,..."
    return {name: numbers(values, f"--over {name}") for name, values in pairs(over, "--over", form)}


def like(default: Any, text: str, place: str) -> Any:
    """The text of --set as a value of the default's kind, or `DeFlowError`."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, tuple):
            return tuple(map(int, text.split(",")))
        return type(default)(text)
    except (KeyError, ValueError) as error:
        kind = "true or false" if isinstance(default, bool) else f"like {default}"
        raise DeFlowError(f"--set {place} must be {kind}, but it is {text!r}.") from error
