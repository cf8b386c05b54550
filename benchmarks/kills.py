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
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from committed import made_by, write_result
from deflow.core.files import sha256
from deflow.core.trees import named_leaves
from deflow.training.policy import load_family
from deflow.training.run_folder import RunFolder
from moments import SET, STAGES, Begun, Kill, Plan, data_kills, describe, training_kills

PATIENCE = 900.0
"""Seconds after which a moment that was never reached is an error."""
TIMES = ("steps_per_second", "train_seconds", "evaluation_seconds")

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
        time.sleep(0.001)
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
    return {path.name: sha256(path) for path in sorted(folder.glob(f"{SET}*.npz"))}


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
    write_result(options.out, document)
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
    return {
        "all_equal": equal,
        "kills_passed": sum(kill.ok for kill in kills),
        "seed": options.seed,
        "family": ["seed0", "seed1"],
        "schedule": "flow-first",
        "steps_of_each_phase": options.steps,
        "seconds": round(time.monotonic() - began, 1),
        "end": result,
        "kills": [kill.to_json() for kill in kills],
        "provenance": made_by(
            shlex.join(["python", *sys.argv]), {"name": SET, "episodes": options.episodes}
        ),
    }


if __name__ == "__main__":
    main()
