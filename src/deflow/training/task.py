"""What a run trains on: the data, the environment to be judged in, and what an agent may know."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from deflow.agents.registry import AGENTS
from deflow.core.errors import DeFlowError
from deflow.core.frames import FEATURES, STACK
from deflow.core.progress import console
from deflow.core.types import Spec
from deflow.data.columns_map import Columns
from deflow.data.dataset import Dataset
from deflow.data.own import Own
from deflow.data.transforms import UNCHANGED, Transforms
from deflow.envs.make import EnvSpec, env_shapes, make_env, shows_frames
from deflow.envs.pool import EnvPool
from deflow.training.config import TrainConfig
from deflow.training.source import Data, as_own, own_env, rewards_of, source, world

_OGBENCH = re.compile(r"(?P<env>.+)-(play|noisy|navigate|stitch|explore)-singletask(-task\d+)?-v0")


@dataclass(frozen=True)
class Job:
    """A dataset, if there is one, beside the environment that judges what is learnt."""

    dataset: Dataset | None
    env: EnvSpec | None
    spec: Spec
    description: dict[str, Any]
    transforms: Transforms = UNCHANGED
    columns: Columns = field(default_factory=Columns)

    def logged(self) -> Dataset:
        """The dataset; raises `DeFlowError` where the run began without one."""
        if self.dataset is None:
            raise DeFlowError(f"{self.description['name']} was learnt without data to look at.")
        return self.dataset

    @property
    def conversion(self) -> dict[str, Any]:
        """How the user's data became these, ready for JSON: what acting and a second reading need,
        and where a policy is judged."""
        return {
            "columns": self.columns.to_json(),
            "transforms": self.transforms.to_json(),
            "env": asdict(self.env) if self.env else None,
        }


def prepare(config: TrainConfig, data: Data = None) -> Job:
    """Load and check everything that a run needs, before any work begins.

    `data` stand in for the task's own; then `config.env`, they themselves or a benchmark's task
    name the environment, and without one the run is trained but not evaluated. An agent that needs
    no data gets none, and none may be given.
    """
    env: EnvSpec | None
    if not config.agent.needs_data:
        if data is not None:
            raise DeFlowError(
                f"{config.agent.name} learns without data: leave the data, and name where it acts "
                "(--env module:make), or take rlpd, which learns from both."
            )
        return _without_data(config)
    if data is None:
        found = source(config.task)
        if found.name != config.task:
            console.print(f"{config.task} names no task; taking the published one, {found.name}.")
        if found.frames:
            require_sight(config, found.name)
        own = Own(found.load(config.data_dir), found.transforms)
        env = EnvSpec.parse(config.env) if config.env else found.env
    else:
        own = as_own(data)
        env = own_env(own, config.env, config.task)
    dataset = own.dataset
    frame = dataset.frame
    if frame:
        require_sight(config, dataset.name)
    if config.online_steps:
        _check_online(config, env, seen=frame is not None)
    if env is not None:
        check_widths((dataset.observations.shape[1:], dataset.actions.shape[1]), env)
    rewards = dataset.rewards[dataset.rows]  # Other rows only end a step, and may be padded.
    spec = Spec(
        observation_dim=FEATURES if frame else dataset.observations.shape[1],
        action_dim=dataset.actions.shape[1],
        reward_range=(float(rewards.min()), float(rewards.max())),
        total_steps=config.steps,
        frame=(frame[0], frame[1], STACK * frame[2]) if frame else None,
    )
    description = {
        "name": dataset.name,
        "own": data is not None,
        "transitions": int(dataset.transitions),
        "episodes": len(dataset.episode_ends),
        "fingerprint": dataset.fingerprint(),
        "behavior_fingerprint": dataset.fingerprint(rewards=False),
    }
    return Job(dataset, env, spec, description, own.transforms, own.columns)


def _without_data(config: TrainConfig) -> Job:
    """An environment alone; of its rewards nothing is known yet."""
    env = world(config.env or config.task)
    # Asked first: an environment that draws cannot be made here.
    _check_online(config, env, seen=shows_frames(env))
    shape, action_dim = _widths(env)
    _check_online(config, env, seen=len(shape) == 3)
    transforms = UNCHANGED if config.env else rewards_of(config.task)
    spec = Spec(shape[0], action_dim, reward_range=(0.0, 0.0), total_steps=config.online_steps)
    nothing = {"own": False, "transitions": 0, "episodes": 0, "fingerprint": ""}
    about = {"name": env.name, **nothing, "behavior_fingerprint": ""}
    return Job(None, env, spec, about, transforms)


def _check_online(config: TrainConfig, env: EnvSpec | None, *, seen: bool) -> None:
    if seen:
        raise DeFlowError(
            f"{config.task} is seen in frames, and from frames nothing is learnt online, as in the "
            "published runs: learn from the data alone, or take the same task from states."
        )
    if env is None:
        raise DeFlowError(
            f"{config.task} names no environment to act in, and learning online needs one: give "
            "--env module:make."
        )


def require_sight(config: TrainConfig, name: str) -> None:
    """Raise `DeFlowError` where the agent cannot learn from frames."""
    if not config.agent.sees_frames:
        seeing = ", ".join(agent for agent, cls in AGENTS.items() if cls.sees_frames)
        raise DeFlowError(
            f"{name} is learned from frames, which {config.agent.name} cannot: choose one of "
            f"{seeing}, or the same task from states."
        )


def check_widths(found: tuple[tuple[int, ...], int], spec: EnvSpec) -> None:
    """Raise `DeFlowError` where the data's observations (frames have three axes) and actions have
    other widths than the environment's."""
    there = _shown_widths(spec) if len(found[0]) == 3 else _widths(spec)
    if found != there:
        raise DeFlowError(
            f"The data hold observations of width {_width(found[0])} and actions of width "
            f"{found[1]}, but the environment {spec.name} has {_width(there[0])} and {there[1]}: "
            "use the one that belongs to the data."
        )


def _widths(spec: EnvSpec) -> tuple[tuple[int, ...], int]:
    env = make_env(spec)
    shape, actions = env_shapes(env)
    env.close()
    return shape, actions


def _shown_widths(spec: EnvSpec) -> tuple[tuple[int, ...], int]:
    """As `_widths`, of one frame, asked in a worker: MuJoCo chooses its way of drawing once in the
    life of a process."""
    with EnvPool(spec, 1, 1) as pool:
        *size, channels = pool.board.observations.shape[1:]
        single = channels // STACK if len(size) == 2 else channels
        return (*size, single), pool.act_dim


def _width(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def env_name(task: str) -> str:
    """What published settings go by: `cube-double` of `cube-double-play-singletask-task2-v0`, and
    any other name, such as D4RL's `antmaze-large-play-v2` or your own, as it is."""
    match = _OGBENCH.fullmatch(task)
    return match["env"] if match else task
