"""Kills while a family learns online: `python benchmarks/online_kills.py`.

A family of two is trained on a small set of cube-single and goes online, once undisturbed and once
killed ten times with SIGKILL at moments drawn from `--seed`, all of them online; `deflow resume`
goes on after each. After every resume, state and replay are read from the newest checkpoint and
held against one another: as many transitions as steps, each the successor of the one before. At
the end both runs are compared bit for bit, replay included. Writes
`benchmarks/results/online_kills.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from committed import made_by, write_result
from deflow.data.generate import generate
from deflow.training import checkpoint
from deflow.training.online import BOOKS, REPLAY
from deflow.training.run_folder import RunFolder
from kills import arrays, finish, start, untimed
from moments import TASK

EPISODES, OFFLINE, EVERY = 10, 100, 100
"""Of the data; steps on them; steps between checkpoints."""


def train_words(folder: RunFolder, data: Path, steps: int) -> list[str]:
    """The command that begins the run, or goes on with it."""
    if folder.exists():
        return ["resume", str(folder.path)]
    options = {
        "--steps": OFFLINE,
        "--online-steps": steps,
        "--chunk": 20,
        "--log-every": 100,
        "--checkpoint-every": EVERY,
        "--eval-every": 10 * EVERY,
        "--eval-episodes": 2,
        "--run-dir": folder.path,
        "--data-dir": data,
    }
    words = ["train", TASK, *(str(word) for pair in options.items() for word in pair)]
    return [*words, "--seeds", "0", "1", "--agent.hidden", "64", "64"]


def replay(folder: RunFolder) -> tuple[dict[str, np.ndarray], dict[str, Any], int]:
    """Transitions, books and the online step of the newest checkpoint; nothing before the first."""
    sound = checkpoint.newest_sound(folder.checkpoints)
    meta = checkpoint.read_meta(sound)
    if BOOKS not in meta:
        return {}, {}, 0
    with ocp.StandardCheckpointer() as reader:
        found = reader.restore((sound / REPLAY).absolute())
    columns = {name: np.asarray(array) for name, array in found.items()}
    return columns, meta[BOOKS], meta["position"]["step"]


def agrees(folder: RunFolder) -> dict[str, Any]:
    """Whether the newest checkpoint's replay holds every step up to it, once and in order."""
    columns, books, step = replay(folder)
    if not columns:
        return {"step": 0, "whole": True}
    ends = np.array(books["met"])
    seen, following = columns["observations"], columns["next_observations"]
    joined = (seen[:, 1:] == following[:, :-1]).all(-1)
    breaks = (~joined).sum(1)
    # Where one has just ended, the next has begun but no transition of it is there.
    begun = np.array(books["episodes"]) - (np.array(books["begun"]) == ends)
    return {
        "step": step,
        "met": books["met"],
        # An episode's first observation does not follow from a transition.
        "whole": bool((ends == step).all() and (breaks == begun).all()),
    }


def online_step(folder: RunFolder) -> int:
    """How far the log says that the run is online."""
    lines = folder.read_lines(folder.metrics) if folder.exists() else []
    return max((line["step"] for line in lines if line["phase"] == "online"), default=-1)


def strike(folder: RunFolder, words: list[str], log: Path, delay: float) -> dict[str, Any]:
    """Run until it has gone on for a checkpoint's distance, and kill it a moment later."""
    begun = online_step(folder)
    process = start(words, log)
    while online_step(folder) < max(begun, 0) + EVERY:
        if process.poll() is not None:
            raise SystemExit(f"The run ended before it was killed; see {log}.")
        time.sleep(0.01)
    time.sleep(delay)
    logged = online_step(folder)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return {"logged_step": logged, "delay": round(delay, 3), **agrees(folder)}


def main() -> None:
    """Both runs, the kills, the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/online_kills.json"))
    options = parser.parse_args()
    rng, steps = random.Random(options.seed), EVERY * (options.kills + 4) * 2
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        generate("cube-single-play-v0", episodes=EPISODES, workers=2, data_dir=home / "data")
        whole, killed = RunFolder(home / "whole"), RunFolder(home / "killed")
        finish(train_words(whole, home / "data", steps), home / "log.txt")
        kills = []
        for number in range(options.kills):
            words = train_words(killed, home / "data", steps)
            kills.append(strike(killed, words, home / "log.txt", rng.uniform(0, 1.5)))
            print(f"kill {number + 1}: {kills[-1]}", flush=True)
        finish(train_words(killed, home / "data", steps), home / "log.txt")
        ours, theirs = arrays(killed), arrays(whole)
        (mine, my_books, _), (yours, your_books, _) = replay(killed), replay(whole)
        equal = {
            "states": all(ours[n].tobytes() == theirs[n].tobytes() for n in theirs),
            "replay": all(mine[n].tobytes() == yours[n].tobytes() for n in yours),
            "books": my_books == your_books,
            "evaluations": untimed(killed, killed.evaluations) == untimed(whole, whole.evaluations),
        }
    command = f"python benchmarks/online_kills.py --kills {options.kills}"
    document = {
        "seed": options.seed,
        "online_steps": steps,
        "after_each_kill": kills,
        "whole_after_each": all(kill["whole"] for kill in kills),
        "equal_at_the_end": equal,
        "provenance": made_by(command, {"name": "cube-single-play-v0", "episodes": EPISODES}),
    }
    write_result(options.out, document)
    print(json.dumps(equal))


if __name__ == "__main__":
    main()
