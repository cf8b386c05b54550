"""`deflow finetune`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from deflow.cli.running import Words, like, pairs
from deflow.core.errors import DeFlowError

if TYPE_CHECKING:
    from deflow.training.run_folder import RunFolder


@dataclass(kw_only=True)
class Finetune:
    """Let a finished offline run go on learning in its environment, with nothing retuned.

    Every member steps one environment of its own, in lockstep with the others; each step is
    followed by a gradient step on a batch of the data and of what it met. Optimiser, targets,
    multiplier, keys and clock are carried on. The offline run is left as it is.

    Examples:
      deflow finetune runs/my-run --steps 100000
      deflow finetune runs/my-run --steps 100000 --freeze-prior --out runs/frozen
      deflow finetune runs/fql --steps 1000000 --set alpha=100
      deflow report runs/my-run-online runs/frozen --figure online.png
    """

    run_dir: tyro.conf.Positional[Path]
    """The offline run's folder."""
    steps: int
    """Steps in the environment."""
    freeze_prior: bool = False
    """Leave DeFlow's base flow as it is: no flow-matching loss is computed and nothing moves it
    (--set prior_online=coasting does as published: momentum moves it for a while)."""
    settings: Annotated[Words, tyro.conf.arg(name="set")] = ()
    """Settings of the agent that differ online, each as setting=value."""
    updates_per_step: int = 1
    """Gradient steps for each step in the environment."""
    overwrite: bool = False
    """Keep at most max(2,000,000, data + 1) transitions, as the official code does: what is met
    takes the place of the oldest. Otherwise nothing is overwritten."""
    eval_every: int | None = None
    """Steps between evaluations (as offline, unless given)."""
    eval_episodes: int | None = None
    """Episodes of one evaluation (as offline, unless given)."""
    log_every: int | None = None
    """Steps between lines of metrics (as offline, unless given)."""
    checkpoint_every: int = 0
    """Steps between checkpoints, which hold what was met too (0: a tenth of all, 100,000 at
    most)."""
    env_patience: float = 60.0
    """Seconds after which an environment that does not answer is begun anew."""
    out: Path | None = None
    """Where the new run is kept (default: the run's name and -online)."""
    env: str | None = None
    """Your own environment, as module:make, where the run named none."""
    data: Path | None = None
    """Your own data, where the run was trained on a file."""
    data_dir: Path | None = None
    """Where datasets are, if they have moved."""
    workers: int | None = None
    """Processes for evaluation, if not as before."""
    json: bool = False
    """Print one JSON document instead of text."""

    def run(self) -> int:
        from deflow.cli.result import show
        from deflow.training.finetune import finetune
        from deflow.training.run_folder import RunFolder

        folder = RunFolder.open(self.run_dir)
        shared = ("eval_every", "eval_episodes", "log_every", "checkpoint_every", "workers")
        given = {name: getattr(self, name) for name in (*shared, "data_dir", "env")}
        found = finetune(
            self.run_dir,
            self.steps,
            run_dir=self.out,
            settings=self._settings(folder),
            dataset=self.data,
            updates_per_step=self.updates_per_step,
            overwrite=self.overwrite,
            env_patience=self.env_patience,
            **{name: value for name, value in given.items() if value is not None},
        )
        show(found, self.json)
        return 0

    def _settings(self, folder: RunFolder) -> dict[str, Any]:
        """What --set and --freeze-prior say, in the types of the agent's settings."""
        from deflow.agents.registry import settings_of

        agent = folder.config().agent
        if self.freeze_prior and not hasattr(agent, "prior_online"):
            raise DeFlowError(f"--freeze-prior is for DeFlow; {agent.name} has no such prior.")
        found: dict[str, Any] = {"prior_online": "frozen"} if self.freeze_prior else {}
        for name, value in pairs(self.settings, "--set", "setting=value"):
            if name in found:
                raise DeFlowError(f"--freeze-prior says what --set {name} is: give one of them.")
            found[name] = like(settings_of(agent).get(name, value), value, name)
        return found
