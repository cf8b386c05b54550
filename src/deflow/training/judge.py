"""Evaluating a finished or unfinished run anew, and filming one of its episodes."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from deflow.core.agent import Agent, State
from deflow.core.checks import require
from deflow.core.errors import DeFlowError
from deflow.core.frames import STACK
from deflow.core.progress import progress_bar
from deflow.core.types import Spec
from deflow.envs.make import EnvSpec
from deflow.envs.pictures import check_video, save_strip, save_video
from deflow.envs.render import record_episode
from deflow.envs.rollout import RolloutTimes
from deflow.training.evaluate import Evaluation, Evaluator, PolicyKind, batched_act
from deflow.training.family import Family
from deflow.training.policy import choosing, load_family, transforms_of
from deflow.training.run_folder import RunFolder
from deflow.training.task import check_widths


@dataclass(frozen=True)
class Judgement:
    """What an evaluation found, member by member."""

    folder: RunFolder
    policy: PolicyKind
    seed: int
    position: dict[str, Any]
    members: list[str]
    results: list[Evaluation]
    times: RolloutTimes

    def to_json(self) -> dict[str, Any]:
        return {
            "run_dir": str(self.folder.path),
            "policy": self.policy,
            "evaluation_seed": self.seed,
            "position": self.position,
            "members": [
                {"member": member, **result.to_json()}
                for member, result in zip(self.members, self.results, strict=True)
            ],
            "seconds": self.times.total,
        }


def env_of(folder: RunFolder, env: str | None = None) -> EnvSpec:
    """The environment that a run is judged in: its own, or `env` where it names none.

    Raises `DeFlowError` where neither names one, both name different ones, or `env` has other
    spaces.
    """
    known = folder.env()
    if env is None:
        if known is None:
            raise DeFlowError(
                f"The run {folder.path} names no environment to evaluate in: give one with "
                "--env module:make, or judge it by data, with --off-policy."
            )
        return known
    box = transforms_of(folder).box
    given = replace(EnvSpec.parse(env), box=(box.low, box.high) if box else None)
    if known and given != known:
        raise DeFlowError(f"{folder.path} is judged in {known.name}: leave --env.")
    spec = folder.spec()
    seen: tuple[int, ...] = (spec.observation_dim,)
    if spec.frame:
        seen = (*spec.frame[:2], spec.frame[2] // STACK)
    check_widths((seen, spec.action_dim), given)
    return given


def judge(
    run: str | Path | RunFolder,
    episodes: int = 50,
    *,
    seed: int = 0,
    workers: int = 0,
    policy: PolicyKind = "policy",
    best_of: int | None = None,
    env: str | None = None,
) -> Judgement:
    """Play episodes with every member of a run; nothing in its folder changes.

    Args:
        run: the run, or its folder.
        episodes: episodes of every member.
        seed: of environments and noise; the same seed gives the same episodes.
        workers: processes that step environments; 0: one for each core.
        policy: `policy`, or `prior` for the base flow alone.
        best_of: take the critic's favourite of so many actions; None: as the run was configured,
            of the base flow alone one.
        env: your own environment, as `module:make`, where the run names none.

    Returns:
        labels in `members`, and beside them `results`, each with `success`, `return_`, `length` and
        `episodes`; `to_json()` is what `deflow evaluate --json` prints.

    Raises:
        DeFlowError: there is no such run, environment, policy or choice, or a number is out of
            range.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(Path(run))
    require("episodes", episodes, at_least=1)
    require("workers", workers, at_least=0)
    place = env_of(folder, env)
    agents, family, states, spec, meta = _chosen(folder, seed, policy, best_of)
    members = [member.label for member in family.members]
    with (
        progress_bar(transient=True) as bar,
        Evaluator(place, spec, len(members), episodes, workers, transforms_of(folder)) as evaluator,
    ):
        task = bar.add_task(f"evaluate {policy}", total=episodes * len(members), note="")
        results, times = evaluator(
            agents,
            states,
            seed,
            policy,
            on_tick=lambda done, total: bar.update(task, completed=done),
        )
    return Judgement(folder, policy, seed, meta["position"], members, results, times)


def _chosen(
    folder: RunFolder, seed: int, policy: PolicyKind, best_of: int | None
) -> tuple[Agent, Family, State, Spec, dict[str, Any]]:
    """The agents as they are to act, beside what `load_family` finds; else `DeFlowError`."""
    require("seed", seed, at_least=0, below=2**32)
    _, family, states, spec, meta = load_family(folder)
    agents = choosing(family.agents, policy, best_of, folder)
    return agents, family, states, spec, meta


def check_film(folder: RunFolder, path: Path) -> None:
    """Raise `DeFlowError` where no film of the run could be written to `path`; before playing."""
    if folder.spec().frame:
        raise DeFlowError(
            f"{folder.path} sees frames; only episodes of runs on states are filmed: leave out "
            "--video."
        )
    if path.suffix != ".png":
        check_video(path)
    elif not os.access(path.absolute().parent, os.W_OK):
        raise DeFlowError(f"'{path}' cannot be written; its folder is absent or not ours to write.")


def film(
    folder: RunFolder,
    path: Path,
    *,
    episode: int = 0,
    seed: int = 0,
    policy: PolicyKind = "policy",
    best_of: int | None = None,
    env: str | None = None,
) -> str:
    """One episode of the first member as a .gif or .mp4, or as a strip of frames (.png).

    Returns the member's label. Raises `DeFlowError` as `judge`, and where nothing can be drawn or
    written.
    """
    check_film(folder, path)
    require("episode", episode, at_least=0, below=2**31)
    every_agent, family, states, spec, _ = _chosen(folder, seed, policy, best_of)
    normal = transforms_of(folder).normal
    agents, state = jax.tree.map(lambda leaf: leaf[:1], (every_agent, states))

    def act(observations: Any, episodes: Any, steps: Any) -> NDArray[np.float32]:
        seen = normal(observations) if normal else observations
        where = (seen, np.uint32(seed), episodes, steps)
        return np.asarray(batched_act(agents, state, *where, spec, policy))

    frames = record_episode(env_of(folder, env), act, seed, episode, every=2)
    if path.suffix == ".png":
        save_strip(frames, path)
    else:
        save_video(frames, path, fps=15)
    return family.members[0].label
