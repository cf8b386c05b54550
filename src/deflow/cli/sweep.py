"""`deflow sweep`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deflow.cli.options import refuse_of_flow_first
from deflow.cli.result import print_json
from deflow.cli.running import Running, Words, grid, pairs
from deflow.core.errors import DeFlowError


@dataclass(kw_only=True)
class Sweep(Running):
    """Train one agent over the values of its settings: one family, one program, and a picture.

    Every value is trained with every seed, and where several settings are swept every combination.
    Only fractions can vary inside a family; for whole numbers, names and flags, `deflow compare`
    takes one agent under several names. Call it again to go on where it stopped.

    Examples:
      deflow sweep cube-single-play-singletask-task1-v0 --over delta=0.0001,0.001,0.01
        --seeds 0 1 2
      deflow sweep cube-single-play-singletask-task1-v0 --agent df-dir --over rho=0.1,1,10
        --set batch_size=128
    """

    over: Words
    """Settings to sweep, each as name=value,value,..."""
    agent: str = "deflow"
    """The agent's name."""
    schedule: str = ""
    """The order of training (default: as published)."""

    def run(self) -> int:
        from deflow.experiments.sweep import print_sweep, sweep

        over = grid(self.over)
        if not over:
            raise DeFlowError("Name what to sweep: --over setting=value,value,...")
        self.check_owners([self.agent])
        for place, _ in pairs(self.settings, "--set", "setting=value"):
            if (setting := place.rpartition(".")[2]) in over:
                raise DeFlowError(f"--set gives {setting} one value and --over several: leave one.")
        out = self.out or Path("runs") / f"sweep-{self.task}-{self.agent}-{'-'.join(over)}"
        config = self.config(
            self.made(self.agent, self.agent), out / self.agent, over=over, schedule=self.schedule
        )
        refuse_of_flow_first(self.set_for(self.agent), config)
        self.check_given([config])
        document = sweep(config, out, self.own())
        if self.json:
            print_json(document)
        else:
            print_sweep(document)
        return 0
