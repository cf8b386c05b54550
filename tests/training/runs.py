"""Ways to hold two runs against each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from deflow.core.trees import named_leaves
from deflow.training.policy import load_family
from deflow.training.run_folder import RunFolder

Training = Callable[..., RunFolder]
"""The fixture `training`: settings of the agent, then options of `deflow.train`."""

TIMES = ("steps_per_second", "train_seconds", "evaluation_seconds")


def arrays(folder: RunFolder) -> dict[str, np.ndarray]:
    """Every array of the newest checkpoint."""
    _, _, states, _, _ = load_family(folder)
    return {name: np.asarray(leaf) for name, leaf in named_leaves(states).items()}


def untimed(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records without the seconds that differ from one run to the next."""
    timed = lambda name: name in TIMES or name.endswith("_ms")  # noqa: E731
    return [{k: v for k, v in record.items() if not timed(k)} for record in records]


def assert_same(one: RunFolder, other: RunFolder) -> None:
    """Parameters and moments bit for bit, and the same lines of metrics and evaluations."""
    ours, theirs = arrays(one), arrays(other)
    assert ours.keys() == theirs.keys()
    apart = [name for name in ours if ours[name].tobytes() != theirs[name].tobytes()]
    assert not apart, apart
    for file in ("metrics", "evaluations"):
        mine = untimed(one.read_lines(getattr(one, file)))
        yours = untimed(other.read_lines(getattr(other, file)))
        assert mine, f"no {file}"
        assert mine == yours, file


def member(folder: RunFolder, index: int) -> dict[str, np.ndarray]:
    """One member's arrays."""
    return {name: array[index] for name, array in arrays(folder).items()}


def tree_of(folder: RunFolder, index: int) -> Any:
    """One member's state."""
    _, _, states, _, _ = load_family(folder)
    return jax.tree.map(lambda leaf: leaf[index], states)
