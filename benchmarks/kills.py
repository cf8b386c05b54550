"""Does a run that is killed again and again end as if it had never been?

    python benchmarks/kills.py

Makes a small set and trains a family on it twice: once undisturbed, once killed with SIGKILL while
it plays episodes, joins them, trains (in both phases), writes checkpoints and evaluates. After each
kill the same command, or `deflow resume`, goes on. At the end every array of the last checkpoints,
every line of metrics and evaluations (but for seconds) and the data files are compared, and
`benchmarks/results/kills.json` is written. About six minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deflow.core.trees import named_leaves
from deflow.training import checkpoint
from deflow.training.policy import load_family
from deflow.training.run_folder import RunFolder, provenance

SET = "cube-single-play-v0"
TASK = "cube-single-play-singletask-task1-v0"
STAGES = ("data", "flow", "policy", "checkpoint", "evaluation")
PATIENCE = 300.0
"""Seconds after which a stage that was never reached is an error."""
TIMES = ("steps_per_second", "train_seconds", "evaluation_seconds")


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

    def json(self) -> dict[str, Any]:
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
        "checkpoint": ("writing one after step", range(2 * steps - late), writing_after, 0.02),
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


# Processes -------------------------------------------------------------------------------------


def start(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    """A command of the library, in a session of its own."""
    program = [sys.executable, "-c", "from deflow.cli.main import main; main()", *words]
    with log.open("ab") as file:
        return subprocess.Popen(program, stdout=file, stderr=file, start_new_session=True)


def finish(words: list[str], log: Path) -> None:
    """Carry out a command to its end."""
    process = start(words, log)
    if process.wait() != 0:
        raise SystemExit(f"deflow {shlex.join(words)} ended with {process.returncode}; see {log}.")


def family_of(pid: int) -> list[int]:
    """The processes of a session, but for its leader."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == pid and fields[0] != "Z" and int(stat.parent.name) != pid:
            found.append(int(stat.parent.name))
    return found


def strike(kill: Kill, words: list[str], plan: Plan, log: Path) -> None:
    """Run a command until the kill's moment, and kill that process alone."""
    print(f"{kill.stage}: {kill.aim}", flush=True)
    heard = log.stat().st_size if log.exists() else 0
    begun, began = Begun.now(plan), time.monotonic()
    process = start(words, log)
    while not kill.ready(plan, begun):
        if process.poll() is not None or time.monotonic() - began > PATIENCE:
            process.kill()
            raise SystemExit(f"'{kill.stage}, {kill.aim}' was never reached; see {log}.")
        time.sleep(0.005)
    time.sleep(kill.delay)
    if process.poll() is not None:
        raise SystemExit(f"'{kill.stage}, {kill.aim}' came too late; see {log}.")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kill.seconds = round(time.monotonic() - began, 3)
    kill.found = describe(plan)
    kill.said = [
        line.strip()
        for line in log.read_bytes()[heard:].decode(errors="replace").splitlines()
        if line.startswith("Going on")
    ]
    deadline = time.monotonic() + 20
    while family_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    kill.children_gone = not family_of(process.pid)


# Comparison ------------------------------------------------------------------------------------


def arrays(folder: RunFolder) -> dict[str, np.ndarray]:
    """Every array of the newest checkpoint."""
    _, _, states, _, _ = load_family(folder)
    return {name: np.asarray(leaf) for name, leaf in named_leaves(states).items()}


def untimed(folder: RunFolder, file: Path) -> list[dict[str, Any]]:
    """A file's records without their seconds."""
    return [
        {name: value for name, value in line.items() if name not in TIMES}
        for line in folder.read_lines(file)
    ]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of the set."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob(f"{SET}*.npz"))
    }


def compare(whole: Plan, killed: Plan) -> dict[str, Any]:
    """The two ends, held against each other."""
    ours, theirs = arrays(killed.run), arrays(whole.run)
    apart = [n for n in theirs if n not in ours or ours[n].tobytes() != theirs[n].tobytes()]
    lines = {
        name: untimed(killed.run, getattr(killed.run, name))
        == untimed(whole.run, getattr(whole.run, name))
        for name in ("metrics", "evaluations")
    }
    return {
        "arrays": len(theirs),
        "arrays_apart": apart,
        "numbers": int(sum(array.size for array in theirs.values())),
        "metrics_equal": lines["metrics"],
        "evaluations_equal": lines["evaluations"],
        "lines_of_metrics": len(untimed(whole.run, whole.run.metrics)),
        "evaluations": len(untimed(whole.run, whole.run.evaluations)),
        "data_equal": digests(killed.data) == digests(whole.data),
        "data": digests(whole.data),
    }


def main() -> None:
    """Both runs, the kills, the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--steps", type=int, default=1000, help="of each of the two phases")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--home", type=Path, help="kept afterwards; by default a temporary one")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kills.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = options.home or Path(temporary)
        document = examine(options, home)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=2) + "\n")
    print(f"{document['kills_passed']} of {options.kills} kills left no trace; see {options.out}.")
    sys.exit(0 if document["all_equal"] else 1)


def examine(options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """The undisturbed run, the disturbed one, and how they compare."""
    rng = random.Random(options.seed)
    whole, killed = (
        Plan(home / name, options.episodes, options.steps, options.steps // 4)
        for name in ("whole", "killed")
    )
    for plan in (whole, killed):
        plan.home.mkdir(parents=True)
    log = home / "log.txt"
    began = time.monotonic()
    print("undisturbed", flush=True)
    finish(whole.generate(), log)
    finish(whole.train(), log)
    counts = {
        stage: options.kills // len(STAGES) + (i < options.kills % len(STAGES))
        for i, stage in enumerate(STAGES)
    }
    kills = data_kills(counts["data"], rng)
    for kill in kills:
        strike(kill, killed.generate(), killed, log)
    finish(killed.generate(), log)
    for kill in training_kills(counts, killed, rng):
        strike(kill, killed.train(), killed, log)
        kills.append(kill)
    finish(killed.train(), log)
    result = compare(whole, killed)
    equal = (
        not result["arrays_apart"]
        and result["metrics_equal"]
        and result["evaluations_equal"]
        and result["data_equal"]
    )
    for kill in kills:
        # A command after the kill went on, and the end does not tell that there was one.
        kill.ok = equal and kill.children_gone
    about = provenance({"name": SET, "episodes": options.episodes})
    about["command"] = shlex.join(["python", *sys.argv])
    return {
        "all_equal": equal,
        "kills_passed": sum(kill.ok for kill in kills),
        "seed": options.seed,
        "family": ["seed0", "seed1"],
        "schedule": "flow-first",
        "steps_of_each_phase": options.steps,
        "seconds": round(time.monotonic() - began, 1),
        "end": result,
        "kills": [kill.json() for kill in kills],
        "provenance": about,
    }


if __name__ == "__main__":
    main()
