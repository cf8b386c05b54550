"""`deflow train`."""

from __future__ import annotations

import dataclasses
import inspect
import json as jsonlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from deflow.cli.options import (
    OF_OWN_DATA,
    TrainingOptions,
    given,
    refuse_given,
    refuse_of_flow_first,
)
from deflow.cli.running import Words, grid, say_where_nothing_is_published
from deflow.core.errors import DeFlowError

if TYPE_CHECKING:
    from deflow.core.agent import Agent
    from deflow.data.own import Own


@dataclass(kw_only=True)
class Train(TrainingOptions):
    """Train a family of runs on a task: one program for all its seeds and swept settings.

    Examples:
      deflow train cube-single-play-singletask-task1-v0 --seeds 0 1 2
      deflow train cube-single-play-singletask-task1-v0 --schedule flow-first --steps 50000
        --agent.hidden 256 256 256 --agent.delta 0.002
      deflow train puzzle-3x3-play-singletask-v0 --over delta=0.0005,0.001,0.005
      deflow train cube-double-play-singletask-v0 --agent iql --preset paper
      deflow train antmaze-medium-play-v2
      deflow train cube-double-play-singletask-v0 --online-steps 1000000
      deflow train cube-double-play-singletask-v0 --agent rlpd --online-steps 1000000
      deflow train online-ant-xy-v0 --agent sac --online-steps 400000
      deflow train my-task --data my-data.npz --env my_module:make_env
      deflow train my-task --data robot.parquet --columns observations=state rewards=r
        --agent.delta auto

    --agent NAME says which system is trained (default: deflow; `deflow agents` lists them, and
    `module:Class` is one of your own). With a TASK before it, --help shows the settings that are
    published for that system on it, which are those it begins from.

    delta may be estimated from the data (see `deflow data iav`): --agent.delta auto takes a tenth
    of their intrinsic action variance for manipulation and all of it for navigation, auto:0.5 half.
    """

    task: tyro.conf.Positional[str]
    """A task of OGBench, such as cube-double-play-singletask-task2-v0, or of D4RL, such as
    pen-human-v1; with --data, any name."""
    agent: Any = None
    steps: int = 1_000_000
    """Gradient steps (of each phase, under flow-first); as published, unless given."""
    schedule: str = ""
    """The order of training (default: as published). DeFlow has joint, as published, and
    flow-first, which trains the flow, caches its proposals, then the rest."""
    over: Words = ()
    """Settings to sweep in the same family, each as name=value,value,..."""
    share_flow: bool = False
    """flow-first: one flow for all members (published deviations use a flow for each seed)."""
    flow_from: str | None = None
    """flow-first: take the flow of this finished run on the same data."""
    keep_checkpoints: int = 2
    """How many checkpoints are kept."""
    run_dir: Path | None = None
    """Where the run is kept (default: runs/ and a name with the date)."""
    auto: tyro.conf.Suppress[str | None] = None
    """Factor of delta's estimate, "" for the published one, None for a given delta."""
    began: tyro.conf.Suppress[Any] = None
    """The command as --config has it, before other options."""
    usual: tyro.conf.Suppress[Any] = None
    """The agent before --agent.setting options."""
    config: Path | None = None
    """A config.json of another run to begin from; options given beside it win. Columns and units of
    --data are that run's too, unless any are given."""

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Train:
        """Read twice: the agent and the task say which settings are the defaults of the rest."""
        from deflow.agents.registry import from_settings

        rest, chosen = _take_option(list(arguments), "--agent")
        rest, factor = _take_auto(rest)
        document = _read_config(_take_option(rest, "--config")[1])
        if document:
            _check(document, rest)
        settings = {**document.get("agent", {})}
        recorded = settings.pop("name", "deflow")
        if document and chosen not in (None, recorded):
            raise DeFlowError(
                f"--config is of a run of {recorded}, whose settings are not those of {chosen}: "
                "leave --config or --agent."
            )
        name: str = chosen or recorded
        if not document and {"-h", "--help"} & {*rest} and not rest[0].startswith("-"):
            # Which ends the first reading; a task's help shows what it would be trained with.
            cls._parse_with(rest, *_published(name, rest[0], "--online-steps" in rest))
        command = cls._parse_with(rest, from_settings(name, settings), document)
        if not document and command.preset == "paper":
            found = _published(name, command.task, command.online_steps > 0)
            command = cls._parse_with(rest, *found)
        command.auto = factor
        return command

    @classmethod
    def _parse_with(
        cls,
        words: list[str],
        agent: Any,
        document: dict[str, Any] | None = None,
        steps: int | None = None,
    ) -> Train:
        """The command with this agent's settings, and these steps, as options and defaults."""
        typed = dataclasses.make_dataclass(
            "Train",
            [
                ("agent", type(agent), field(default_factory=lambda: agent)),
                ("steps", int, field(default=steps or cls.steps)),
            ],
            bases=(cls,),
            namespace={"__doc__": cls.__doc__},
            kw_only=True,
        )
        about = inspect.cleandoc(cls.__doc__ or "")
        default = _from_document(typed, document, agent, words) if document else None
        parsed: Any = tyro.cli(
            typed, args=words, prog="deflow train", default=default, description=about
        )
        command: Train = parsed
        command.began, command.usual = default, agent
        return command

    def run(self) -> int:
        from deflow.agents.registry import settings_of
        from deflow.cli.result import show
        from deflow.training.config import TrainConfig
        from deflow.training.delta import with_delta
        from deflow.training.train import train

        shared = {f.name for f in dataclasses.fields(TrainConfig)} - {"over"}
        config = TrainConfig(**{name: getattr(self, name) for name in shared}, over=grid(self.over))
        changed = given(self.agent, settings_of(self.agent), self.usual)
        for name in changed:
            if name in config.over:
                raise DeFlowError(
                    f"--agent.{name} gives {name} one value and --over several: leave one."
                )
        refuse_of_flow_first(changed, config)
        if self.config:
            refuse_given(self, ("preset",), "a run that begins without --config: leave one")
        self.check_given([config], self.began)
        data = self.own()
        if self.auto is not None:
            config = with_delta(config, data, self.auto)
        if self.preset == "paper" and not (self.config or self.data):
            say_where_nothing_is_published(self.agent, self.task)
        show(train(config, data), self.json)
        return 0

    def own(self) -> Own | None:
        """The user's own data; after --config as that run read its own."""
        from deflow.data.own import load_again

        kept = self.config.with_name("conversion.json") if self.config else None
        if not (self.data and kept and kept.is_file()) or given(self, OF_OWN_DATA):
            return super().own()
        return load_again(self.data, jsonlib.loads(kept.read_text()))


def _published(name: str, task: str, online: bool) -> tuple[Agent, None, int | None]:
    """An agent with its published settings for a task, no document, and its published steps."""
    from deflow.agents.registry import from_settings, preset, published_steps
    from deflow.training.task import env_name

    env = env_name(task)
    agent = from_settings(name, preset(name, env, online))
    return agent, None, published_steps(name, env, online)


def _take_option(words: list[str], option: str) -> tuple[list[str], str | None]:
    """Remove `--option value` or `--option=value`."""
    for i, word in enumerate(words):
        if word == option and i + 1 < len(words):
            return words[:i] + words[i + 2 :], words[i + 1]
        if word.startswith(f"{option}="):
            return words[:i] + words[i + 1 :], word.split("=", 1)[1]
    return words, None


def _take_auto(words: list[str]) -> tuple[list[str], str | None]:
    """Remove `--agent.delta auto`, or `auto:0.5`; what stands behind the colon, or None."""
    from deflow.training.delta import auto_of

    rest, value = _take_option(words, "--agent.delta")
    factor = auto_of(value)
    return (words, None) if factor is None else (rest, factor)


def _read_config(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        document = jsonlib.loads(Path(path).expanduser().read_text())
    except (OSError, ValueError) as error:
        raise DeFlowError(f"The configuration {path} cannot be read: {error}.") from error
    if not isinstance(document, dict) or "agent" not in document:
        raise DeFlowError(f"{path} is not a configuration that `deflow train` has saved.")
    return document


def _check(document: dict[str, Any], words: list[str]) -> None:
    """Raise `DeFlowError`, with the file's name, where it is no whole configuration."""
    from deflow.training.config import TrainConfig

    try:
        TrainConfig.from_json(document)
    except DeFlowError as error:
        raise DeFlowError(f"{_take_option(words, '--config')[1]}: {error}") from error


def _from_document(typed: type, document: dict[str, Any], agent: Any, words: list[str]) -> Any:
    """The command as a saved configuration gave it, but for the folder of the run, and for swept
    settings that stand among the words too."""
    known = {f.name for f in dataclasses.fields(typed)}
    values = {k: v for k, v in document.items() if k in known and k != "run_dir"}
    values["seeds"] = tuple(values["seeds"])
    named = {word.removeprefix("--over=").partition("=")[0] for word in words}
    swept = [item for item in values.get("over", {}).items() if item[0] not in named]
    values["over"] = (tuple(f"{name}={','.join(map(str, found))}" for name, found in swept),)
    values["data_dir"] = Path(values["data_dir"]) if values.get("data_dir") else None
    return typed(**{**values, "agent": agent})
