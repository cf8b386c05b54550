"""Evaluating a finished or unfinished run anew, and filming one of its episodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from deflow.core.agent import Agent
from deflow.core.checks import require
from deflow.core.errors import DeFlowError
from deflow.core.progress import progress_bar
from deflow.envs.make import EnvSpec
from deflow.envs.pictures import save_strip, save_video
from deflow.envs.render import record_episode
from deflow.envs.rollout import RolloutTimes
from deflow.training.evaluate import Evaluation, Evaluator, Policy, batched_act
from deflow.training.policy import load_family, transforms_of
from deflow.training.run_folder import RunFolder


@dataclass(frozen=True)
class Judgement:
    """What an evaluation found, member by member."""

    folder: RunFolder
    policy: Policy
    seed: int
    position: dict[str, Any]
    members: list[str]
    results: list[Evaluation]
    times: RolloutTimes

    def json(self) -> dict[str, Any]:
        return {
            "run_dir": str(self.folder.path),
            "policy": self.policy,
            "evaluation_seed": self.seed,
            "position": self.position,
            "members": [
                {"member": member, **result.json()}
                for member, result in zip(self.members, self.results, strict=True)
            ],
            "seconds": self.times.total,
        }


def env_of(folder: RunFolder) -> EnvSpec:
    """The environment that a run is judged in; raises `DeFlowError` where it names none."""
    found = folder.read_json("conversion.json")["env"]
    if found is None:
        raise DeFlowError(
            f"The run {folder.path} names no environment to evaluate in: train it with "
            "--env module:make, or judge it by data, with --off-policy."
        )
    return EnvSpec.from_json(found)


def judge(
    folder: RunFolder,
    *,
    episodes: int,
    seed: int = 0,
    workers: int = 0,
    policy: Policy = "policy",
    best_of: int | None = None,
) -> Judgement:
    """Play `episodes` episodes with every member of a run; nothing in the folder changes.

    `best_of` takes the critic's favourite of so many proposals, of the policy or of the base flow,
    whatever the run was configured with. Raises `DeFlowError` where the agent has no such choice,
    or no base flow.
    """
    _, family, states, spec, meta = load_family(folder)
    agents = choosing(family.agents, best_of)
    if policy == "prior" and not hasattr(agents, "propose"):
        raise DeFlowError(
            f"The agent {agents.name} of {folder.path} has no base flow: evaluate its policy."
        )
    members = [member.label for member in family.members]
    with (
        progress_bar(transient=True) as bar,
        Evaluator(
            env_of(folder), spec, len(members), episodes, workers, transforms_of(folder)
        ) as evaluator,
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


def choosing(agents: Agent, best_of: int | None) -> Agent:
    """The same agents, but that each takes the best of so many proposals; None changes nothing."""
    if best_of is None:
        return agents
    if not hasattr(agents, "best_of"):
        raise DeFlowError(
            f"The agent {agents.name} does not choose among several actions, so --best-of means "
            "nothing to it."
        )
    require("best_of", best_of, at_least=1)
    setting: dict[str, Any] = {"best_of": best_of}
    return replace(agents, **setting)


def film(
    folder: RunFolder,
    path: Path,
    *,
    episode: int = 0,
    seed: int = 0,
    member: int = 0,
    every: int = 2,
    best_of: int | None = None,
) -> Path:
    """One episode of one member as a .gif or .mp4, or as a strip of frames (.png)."""
    _, family, states, spec, _ = load_family(folder)
    if spec.frame:
        raise DeFlowError(
            f"{folder.path} sees frames; only episodes of runs on states are filmed: leave out "
            "--video."
        )
    normal = transforms_of(folder).normal
    family_agents = choosing(family.agents, best_of)
    agents, state = jax.tree.map(lambda leaf: leaf[member : member + 1], (family_agents, states))

    def act(observations: Any, episodes: Any, steps: Any) -> NDArray[np.float32]:
        seen = normal(observations) if normal else observations
        where = (seen, np.uint32(seed), episodes, steps)
        return np.asarray(batched_act(agents, state, *where, spec, "policy"))

    frames = record_episode(env_of(folder), act, seed, episode, every)
    if path.suffix == ".png":
        save_strip(frames, path)
    else:
        save_video(frames, path, fps=15)
    return path
