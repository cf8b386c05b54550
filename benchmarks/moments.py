"""What `kills.py` disturbs, how to see from outside where it stands, and when to strike."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deflow.training import checkpoint
from deflow.training.run_folder import RunFolder

SET = "cube-single-play-v0"
TASK = "cube-single-play-singletask-task1-v0"
STAGES = ("data", "flow", "policy", "checkpoint", "evaluation")


@dataclass(frozen=True)
class Plan:
    """What is run, and how often it is disturbed."""

    home: Path
    episodes: int
    steps: int
    evaluate_every: int

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.home / "run")

    def generate(self) -> list[str]:
        """The command that makes the set; the same command goes on."""
        words = ["data", "generate", SET, "--episodes", self.episodes, "--workers", 2]
        return [*map(str, words), "--data-dir", str(self.data)]

    def train(self) -> list[str]:
        """The command that begins the run, or goes on with it."""
        if self.run.exists():
            return ["resume", str(self.run.path)]
        options = {
            "--schedule": "flow-first",
            "--steps": self.steps,
            "--chunk": 50,
            "--log-every": 100,
            "--checkpoint-every": 100,
            "--eval-every": self.evaluate_every,
            "--eval-episodes": 4,
            "--workers": 2,
            "--run-dir": self.run.path,
            "--data-dir": self.data,
        }
        words = ["train", TASK, *(str(word) for pair in options.items() for word in pair)]
        return [*words, "--seeds", "0", "1", "--agent.hidden", "64", "64"]


@dataclass(frozen=True)
class Begun:
    """Where things stood when a command was started."""

    time: float
    step: int
    episodes: int

    @classmethod
    def now(cls, plan: Plan) -> Begun:
        """As of this moment."""
        return cls(time.time(), last_step(plan), episodes_played(plan))

    def before(self, path: Path) -> bool:
        """Whether a file or folder is there and was touched since."""
        return path.exists() and path.stat().st_mtime > self.time


Ready = Callable[[Plan, Begun], bool]


@dataclass
class Kill:
    """One kill: what it aimed at, when, what it hit, and whether the work went on."""

    stage: str
    aim: str
    ready: Ready
    delay: float
    found: str = ""
    seconds: float = 0.0
    children_gone: bool = False
    ok: bool = False
    said: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """What is kept of it."""
        return {name: value for name, value in vars(self).items() if name != "ready"}


# Where a run stands, seen from outside ---------------------------------------------------------


def last_step(plan: Plan) -> int:
    """Gradient steps of all phases in the newest checkpoint."""
    names = [path.name for path in checkpoint.existing(plan.run.checkpoints)]
    return int(names[-1].removeprefix("step-")) if names else -1


def half_written(plan: Plan) -> list[Path]:
    """Checkpoints that are not whole yet, or never will be."""
    return list(plan.run.checkpoints.glob(".*.partial"))


def evaluating(plan: Plan) -> int | None:
    """The total step that is being evaluated: its metrics are there, its evaluations are not."""
    logged = plan.run.read_lines(plan.run.metrics)
    if not logged or logged[-1]["phase"] != "policy":
        return None
    line = logged[-1]
    due = line["step"] % plan.evaluate_every == 0 or line["step"] == plan.steps
    judged = {record["total_step"] for record in plan.run.read_lines(plan.run.evaluations)}
    return line["total_step"] if due and line["total_step"] not in judged else None


def episodes_played(plan: Plan) -> int:
    """Episodes of the set that are finished."""
    return len(list((plan.data / f".{SET}.partial").glob("episode-*.npz")))


def joining(plan: Plan) -> bool:
    """Whether the episodes are being joined into a file."""
    return (plan.data / f".{SET}.partial" / f"{SET}.npz").exists()


# Kills -----------------------------------------------------------------------------------------


def data_kills(count: int, rng: random.Random) -> list[Kill]:
    """The first at any moment, the last while episodes are joined, the others while playing."""

    def playing(plan: Plan, begun: Begun) -> bool:
        return episodes_played(plan) > begun.episodes

    kills = [Kill("data", "while playing", playing, rng.uniform(0, 1)) for _ in range(count)]
    if count:
        kills[0] = Kill("data", "at any moment", lambda plan, begun: True, rng.uniform(0, 6))
        kills[-1] = Kill("data", "while joining", lambda plan, begun: joining(plan), 0.0)
    return kills


def reached(step: int) -> Ready:
    """A checkpoint of this step or a later one was written by this very process."""
    return lambda plan, begun: last_step(plan) >= max(step, begun.step + 1)


def writing_after(step: int) -> Ready:
    """This very process is writing a checkpoint, and there is one of this step or a later one."""
    return lambda plan, begun: (
        last_step(plan) >= step and any(map(begun.before, half_written(plan)))
    )


def evaluating_from(step: int) -> Ready:
    """This very process is evaluating this step or a later one."""
    return lambda plan, begun: (
        begun.before(plan.run.metrics) and (evaluating(plan) or 0) >= max(step, begun.step)
    )


def training_kills(counts: dict[str, int], plan: Plan, rng: random.Random) -> list[Kill]:
    """Random steps in their order, each with what must be going on there."""
    steps, late = plan.steps, 200
    points = range(steps + plan.evaluate_every, 2 * steps + 1, plan.evaluate_every)
    kinds: dict[str, tuple[str, Sequence[int], Callable[[int], Ready], float]] = {
        "flow": ("training from step", range(steps - late), reached, 0.3),
        "policy": ("training from step", range(steps, 2 * steps - late), reached, 0.3),
        # Writing takes some hundredths of a second and may be missed: leave several chances.
        "checkpoint": ("writing one after step", range(2 * steps - 4 * late), writing_after, 0.02),
        "evaluation": ("evaluating from step", points, evaluating_from, 1.5),
    }
    drawn = []
    for stage, (what, among, ready, longest) in kinds.items():
        for _ in range(counts[stage]):
            step = rng.choice(among)
            kill = Kill(stage, f"{what} {step}", ready(step), rng.uniform(0, longest))
            drawn.append((step, kill))
    return [kill for _, kill in sorted(drawn, key=lambda pair: pair[0])]


def describe(plan: Plan) -> str:
    """What a kill hit, from what it left behind."""
    if not plan.run.exists():
        what = "joining" if joining(plan) else "playing"
        return f"{what}, {episodes_played(plan)} episodes there"
    where = f"checkpoint {last_step(plan)}" if last_step(plan) >= 0 else "no checkpoint yet"
    if half_written(plan):
        return f"{where}, the next half written"
    judged = evaluating(plan)
    return f"{where}, evaluating step {judged}" if judged is not None else f"{where}, training"
