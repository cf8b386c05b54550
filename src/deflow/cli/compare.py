"""`deflow compare`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deflow.cli.options import learns_before, refuse_of_flow_first
from deflow.cli.result import print_json
from deflow.cli.running import Running, Words, check_names, pairs, whole
from deflow.core.errors import DeFlowError

if TYPE_CHECKING:
    from deflow.training.config import TrainConfig


@dataclass(kw_only=True)
class Compare(Running):
    """Train several agents on one task and put them side by side: a table and their curves.

    Each agent is trained as one family over the seeds, in its own folder under --out. Call it again
    to go on: finished runs are kept, a stopped one continues from its newest checkpoint. Where an
    agent fails, the others are trained all the same, and the exit status is 1 in the end. An agent
    may stand in the comparison more than once under names of your own, as name=agent.

    Examples:
      deflow compare cube-single-play-singletask-task1-v0 --agents bc fql deflow --seeds 0 1 2
      deflow compare cube-single-play-singletask-task1-v0 --agents fql deflow floq --steps 50000
        --budget-steps floq=20000 --hidden 256 256 256 --schedule deflow=flow-first
      deflow compare cube-double-play-singletask-task2-v0 --agents deflow fixed=deflow
        --set fixed.fixed_alpha=10
    """

    agents: tuple[str, ...]
    """Names of agents, each perhaps as name=agent."""
    budget_steps: Words = ()
    """Gradient steps of agents that need other budgets than the rest, each as name=steps."""
    schedule: Words = ()
    """Orders of training, each as name=schedule (default: as published)."""

    def run(self) -> int:
        from deflow.core.progress import console
        from deflow.experiments.compare import compare, print_comparison

        out = self.out or Path("runs") / f"compare-{self.task}"
        configs = self.configs(out)
        self.check_given(configs.values())
        document = compare(configs, out, self.own())
        if self.json:
            print_json(document)
        else:
            print_comparison(document)
        for name, why in document["failed"].items():
            console.print(f"{name} failed: {why}", style="yellow")
        return 1 if document["failed"] else 0

    def configs(self, out: Path) -> dict[str, TrainConfig]:
        """One configuration for each agent, by its name here."""
        parted = [word.partition("=") for word in self.agents]
        named = {label: name if equals else label for label, equals, name in parted}
        for label in named:
            if ":" in label:
                raise DeFlowError(
                    f"An agent of your own needs a name in --agents: write name={label}."
                )
            if not re.fullmatch(r"[\w-]+", label):
                raise DeFlowError(
                    f"The name {label!r} in --agents must be of letters, digits, - and _, since it "
                    "names a folder."
                )
        if not named or len(named) != len(self.agents):
            raise DeFlowError("--agents must name each agent once; give others as name=agent.")
        self.check_owners(named)
        budgets = dict(pairs(self.budget_steps, "--budget-steps", "name=steps"))
        schedules = dict(pairs(self.schedule, "--schedule", "name=schedule"))
        check_names(budgets, named, "--budget-steps")
        check_names(schedules, named, "--schedule")
        steps = {
            label: {"steps": whole(budget, f"--budget-steps {label}")}
            for label, budget in budgets.items()
        }
        configs = {
            label: self.config(
                self.made(label, name),
                out / label,
                schedule=schedules.get(label, ""),
                **steps.get(label, {}),
            )
            for label, name in named.items()
        }
        for label, config in configs.items():
            refuse_of_flow_first(self.set_for(label), config)
        for label in budgets:
            if not learns_before(configs[label]):
                raise DeFlowError(f"--budget-steps is not for {label}, which learns online alone.")
        return configs
