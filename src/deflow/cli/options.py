"""The options that every command that trains has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(kw_only=True)
class TrainingOptions:
    """How a family is trained and judged; what is trained, and where, each command says itself."""

    seeds: tuple[int, ...] = (0,)
    """One run for each, all of an agent's in one program."""
    steps: int = 1_000_000
    """Gradient steps (of each phase, where a schedule has several)."""
    preset: Literal["paper", "none"] = "paper"
    """Begin from the published settings of the task's environment, or from plain defaults."""
    data: Path | None = None
    """Your own data: an npz file with observations, actions, rewards, terminals, ..."""
    env: str | None = None
    """Your own environment, as module:make."""
    eval_every: int = 100_000
    """Steps between evaluations; the last step is always evaluated."""
    eval_episodes: int = 50
    """Episodes of one evaluation; 0 for none."""
    eval_seed: int = 0
    """Seed of the evaluation's environments and noise."""
    log_every: int = 1000
    """Steps between lines of metrics."""
    checkpoint_every: int = 100_000
    """Steps between checkpoints, from which a stopped run goes on, beside those of phases' ends."""
    chunk: int = 100
    """Steps in one compiled scan; the screen moves once a chunk."""
    data_dir: Path | None = None
    """Where datasets are (default: $DEFLOW_DATA_DIR, else the user's cache)."""
    workers: int = 0
    """Processes that step environments (0: one for each core)."""
    json: bool = False
    """Print the result as JSON."""
