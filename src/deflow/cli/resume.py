"""`deflow resume`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass
class Resume:
    """Go on with a run that was stopped, from its newest sound checkpoint.

    On the same machine, with the same number of threads and the same versions, the result equals
    that of a run that was never stopped, bit for bit. GPUs need
    XLA_FLAGS=--xla_gpu_deterministic_ops=true for that; it was checked on CPUs only.

    Examples:
      deflow resume runs/my-run
      deflow resume runs/my-run --data my-data.npz
    """

    run_dir: Positional[Path]
    """The run's folder."""
    data: Path | None = None
    """Your own data, where the run was trained on a file."""
    data_dir: Path | None = None
    """Where datasets are, if they have moved."""
    workers: int | None = None
    """Processes that step environments, if not as before."""
    env_patience: float | None = None
    """Seconds after which an environment learnt in is begun anew, if not as before."""
    json: bool = False
    """Print one JSON document instead of text."""

    def run(self) -> int:
        from deflow.cli.result import show
        from deflow.training.train import resume

        where = (self.data_dir, self.workers, self.env_patience)
        show(resume(self.run_dir, self.data, *where), self.json)
        return 0
