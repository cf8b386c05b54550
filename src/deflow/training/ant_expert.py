"""The ant's expert out of its run, for the mazes that it is to walk."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from deflow.agents.registry import name_of
from deflow.core.errors import DeFlowError
from deflow.data.oracles_ant import WIDTHS, AntExpert
from deflow.envs.make import WALKING_ANT
from deflow.training import checkpoint
from deflow.training.policy import load_policy
from deflow.training.run_folder import RunFolder


def ant_expert(path: Path) -> AntExpert:
    """The expert in a file, or of a run: its actor's mean, which must act as the run's policy.

    Raises `DeFlowError` where the run is of another agent or environment, has more than one member,
    or its policy has another form.
    """
    if not path.is_dir():
        return AntExpert.read(path)
    folder = RunFolder.open(path)
    config, env = folder.config(), folder.env()
    if name_of(config.agent) != "sac" or env is None or env.env_id != WALKING_ANT:
        raise DeFlowError(
            f"{path} is a run of {config.agent.name} on {config.task}, and ant mazes are walked by "
            f"a run of sac on {WALKING_ANT}: give one."
        )
    policy, sound = load_policy(path), checkpoint.newest_sound(folder.checkpoints)
    *hidden, head = policy.states.actor.model.net.layers
    layers = [(np.asarray(x.weight[0]), np.asarray(x.bias[0])) for x in (*hidden, head)]
    weight, bias = layers[-1]
    means = weight.shape[1] // 2  # The head's second half is the deviation.
    source = {
        "run": path.resolve().name,
        "task": config.task,
        "seed": config.seeds[0],
        "checkpoint": sound.name,
        "checkpoint_sha256": checkpoint.fingerprint(sound),
    }
    expert = AntExpert((*layers[:-1], (weight[:, :means], bias[:means])), source)
    seen = np.random.default_rng(0).standard_normal((64, WIDTHS[0]))
    with jax.default_matmul_precision("highest"):  # GPUs' default is too coarse for the limit.
        acted = policy(seen)
    if not np.allclose(expert(seen), acted, atol=1e-4):
        raise DeFlowError(
            f"{path} holds a policy of another form than SAC's own (LayerNorm in its actor, or "
            "normalised observations); train it with the published settings."
        )
    return expert
