"""DeFlow: offline reinforcement learning with flow policies.

>>> import deflow
>>> run = deflow.train("cube-single-play-singletask-task1-v0", steps=50_000)
>>> policy = deflow.load_policy(run.path, seed=0)
>>> action = policy(observation)
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deflow import parity
    from deflow.agents.deflow import DeFlow
    from deflow.api import evaluate, train
    from deflow.core.agent import Agent
    from deflow.core.errors import DeFlowError
    from deflow.data.dataset import Dataset
    from deflow.training.finetune import finetune
    from deflow.training.policy import Policy, load_policy
    from deflow.training.train import resume

__version__ = version("deflow-rl")

_HOMES = {
    "Agent": "deflow.core.agent",
    "DeFlow": "deflow.agents.deflow",
    "DeFlowError": "deflow.core.errors",
    "Dataset": "deflow.data.dataset",
    "Policy": "deflow.training.policy",
    "evaluate": "deflow.api",
    "load_policy": "deflow.training.policy",
    "finetune": "deflow.training.finetune",
    "resume": "deflow.training.train",
    "train": "deflow.api",
}

__all__ = [
    "Agent",
    "Dataset",
    "DeFlow",
    "DeFlowError",
    "Policy",
    "__version__",
    "evaluate",
    "finetune",
    "load_policy",
    "parity",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: worker processes never pay for JAX."""
    if name == "parity":
        return import_module("deflow.parity")
    if name not in _HOMES:
        raise AttributeError(f"module 'deflow' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
