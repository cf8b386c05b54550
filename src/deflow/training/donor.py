"""A flow that another run has trained, for the schedule that trains the flow first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from deflow.core.agent import Agent, State
from deflow.core.errors import DeFlowError
from deflow.training import checkpoint
from deflow.training.config import TrainConfig
from deflow.training.family import Family, members_of
from deflow.training.run_folder import RunFolder
from deflow.training.task import Job


def check_donor(config: TrainConfig, job: Job) -> None:
    """Raise `DeFlowError` where `config.flow_from` cannot be used; before anything is written."""
    assert config.flow_from is not None
    family = Family.build(config.agent, members_of(config.seeds, config.over))
    load_donor(config.flow_from, job, family.shapes(job.spec))
    other = _first_of(RunFolder.open(Path(config.flow_from)).config())
    for name in config.agent.behavior_settings:
        theirs, ours = getattr(other, name), getattr(config.agent, name)
        if theirs != ours:
            raise DeFlowError(
                f"The flow of {config.flow_from} was trained with {name} {theirs}, and this run "
                f"has {ours}: give the same."
            )


def _first_of(config: TrainConfig) -> Agent:
    """A run's first member, whose flow is taken."""
    return replace(config.agent, **dict(members_of(config.seeds, config.over)[0].settings))


def load_donor(path: str, job: Job, like: State) -> State:
    """The first member's state of a finished run on the same data, as a family of one.

    The tasks of one dataset differ in rewards alone, of which a flow knows nothing: a run on any of
    them will do.

    Raises `DeFlowError` where the run is not there, its flow phase is not done or failed, its data
    are others, or its networks have other sizes.
    """
    folder = RunFolder.open(Path(path))
    recorded = folder.dataset()
    if recorded["behavior_fingerprint"] != job.description["behavior_fingerprint"]:
        raise DeFlowError(
            f"The flow of {path} was trained on other data ({recorded['name']}): choose a run on "
            f"{job.description['name']}."
        )
    sound = checkpoint.newest_sound(folder.checkpoints)
    meta = checkpoint.read_meta(sound)
    config, position = folder.config(), meta["position"]
    phases = config.agent.phases(replace(job.spec, total_steps=config.steps), config.schedule)
    if not phases or phases[0].graft is None:
        raise DeFlowError(
            f"{path} has no flow of its own to take ({config.agent.name}, {config.schedule}): "
            "choose a run that was trained flow-first."
        )
    first = phases[0]
    if position["phase"] == 0 and position["step"] < first.steps:
        raise DeFlowError(f"The flow of {path} is not finished: `deflow resume {path}` first.")
    first_member = members_of(config.seeds, config.over)[0].label
    if any((e["member"], e["phase"]) == (first_member, first.name) for e in position["frozen"]):
        raise DeFlowError(
            f"The flow of {path} diverged in {first_member}, the member that would be taken: "
            "choose another run."
        )
    online = len(phases) <= position["phase"]
    if online and getattr(config.agent, "prior_online", "learns") != "frozen":
        raise DeFlowError(
            f"The flow of {path} has gone on learning online: choose the offline run that it began "
            "from."
        )
    members = len(meta["members"])
    wider = {
        "states": jax.tree.map(lambda leaf: np.empty((members, *leaf.shape[1:]), leaf.dtype), like),
        "keys": np.empty((members, *jax.random.key_data(jax.random.key(0)).shape), np.uint32),
    }
    try:
        states = checkpoint.load(sound, wider)["states"]
    except (ValueError, KeyError) as error:
        raise DeFlowError(
            f"The networks of {path} have other sizes than this run's: give the same sizes."
        ) from error
    return jax.tree.map(lambda leaf: leaf[:1], states)
