"""A robot's log in LeRobot's layout and as one Parquet file, from file to judged policy.

    python benchmarks/lerobot.py

Collects Maze2D's U-maze as `d4rl_sets.py` does and writes it twice: as a folder in LeRobot's layout
(v3, state and action columns, two data files), and as one Parquet file with other column names. BC
and DeFlow (2x64) learn from each, and are judged by data alone (fitted Q evaluation) and in the
maze. Writes `benchmarks/results/lerobot.json`. What is trained or judged is kept, what was stopped
goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from committed import made_by, write_result
from d4rl_sets import MAZE, SEED, collect_maze
from deflow.agents.bc import BC
from deflow.agents.deflow import DeFlow
from deflow.core.agent import Agent
from deflow.core.files import write_json, written_whole
from deflow.data.d4rl import normalized_score
from deflow.data.hdf5 import read_hdf5
from deflow.data.iav import intrinsic_action_variance, published_factor
from deflow.data.own import Own, load_own
from deflow.envs.d4rl import make_d4rl
from deflow.experiments.lineup import train_all
from deflow.training.config import TrainConfig
from deflow.training.judge import judge
from deflow.training.off_policy import off_policy
from deflow.training.run_folder import RunFolder
from deflow.value.fqe import FQE

COMMAND = "python benchmarks/lerobot.py"
COLUMNS = {
    "lerobot": {},
    "parquet": {
        "observations": ["position", "velocity"],
        "actions": ["push"],
        "rewards": "reward",
        "terminals": "none",
        "episode": "recording",
    },
}
"""Which column is what; LeRobot's names are known, and of endings it tells nothing."""
FPS = 100
"""Frames a second that the log declares: a step of the maze is a hundredth of a second."""
FIT = FQE(hidden=(64, 64), learning_rate=1e-3, tau=0.02)
"""A small network and a fast target: 10,000 steps see the discount's horizon of 100 twice."""

Log = dict[str, np.ndarray[Any, Any]]


def make_maze() -> gymnasium.Env[Any, Any]:
    """Where the policies are judged, as `--env module:make` takes it."""
    return make_d4rl(MAZE)


def recorded(file: Path) -> Log:
    """The set as a log, a recording for each of the ball's ways."""
    arrays = read_hdf5(file)
    cut = arrays["timeouts"] != 0
    return {
        "state": arrays["observations"],
        "action": arrays["actions"],
        "reward": arrays["rewards"],
        "recording": np.cumsum(np.append(False, cut[:-1])),
    }


def write_lerobot(log: Log, folder: Path) -> None:
    """A folder as LeRobot v3 lays it out, but for statistics and videos."""
    recording = log["recording"]
    first = np.unique(recording, return_index=True)[1]
    frame = np.arange(len(recording)) - first[recording]
    columns = {
        "observation.state": log["state"],
        "action": log["action"],
        "next.reward": log["reward"],
        "next.done": np.append(recording[1:] != recording[:-1], True),
        "timestamp": (frame / FPS).astype(np.float32),
        "frame_index": frame,
        "episode_index": recording,
        "index": np.arange(len(recording)),
        "task_index": np.zeros(len(recording), np.int64),
    }
    half = first[len(first) // 2]
    for number, part in enumerate((slice(0, half), slice(half, None))):
        file = folder / "data" / "chunk-000" / f"file-{number:03d}.parquet"
        write_table({name: column[part] for name, column in columns.items()}, file)
    lengths = np.bincount(recording)
    episodes = {"episode_index": np.arange(len(lengths)), "length": lengths}
    write_table(episodes, folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    tasks = {"task_index": np.zeros(1, np.int64), "task": np.array(["stand at the goal"])}
    write_table(tasks, folder / "meta" / "tasks.parquet")
    features = {
        name: {"dtype": str(column.dtype), "shape": list(column.shape[1:]) or [1], "names": None}
        for name, column in columns.items()
    }
    info = {
        "codebase_version": "v3.0",
        "robot_type": "ball",
        "total_episodes": len(lengths),
        "total_frames": len(recording),
        "total_tasks": 1,
        "fps": FPS,
        "splits": {"train": f"0:{len(lengths)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "features": features,
    }
    write_json(folder / "meta" / "info.json", info)


def write_parquet(log: Log, file: Path) -> None:
    """One file, with the names that a person might have given."""
    columns = {
        "position": log["state"][:, :2],
        "velocity": log["state"][:, 2:],
        "push": log["action"],
        "reward": log["reward"],
        "recording": np.array([f"run {number}" for number in log["recording"]]),
    }
    write_table(columns, file)


def write_table(columns: Log, file: Path) -> None:
    """Columns as Parquet; a matrix is a column of lists."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    cells = {name: list(column) if column.ndim > 1 else column for name, column in columns.items()}
    with written_whole(file) as temporary:
        pq.write_table(pa.table(cells), temporary)


def written(options: argparse.Namespace) -> dict[str, Path]:
    """The log in both formats."""
    file = options.runs / "data" / f"{MAZE}.hdf5"
    collect_maze(file, options.rows)
    places = {"lerobot": options.runs / "log", "parquet": options.runs / "log.parquet"}
    log = recorded(file)
    write_lerobot(log, places["lerobot"])
    write_parquet(log, places["parquet"])
    return places


def trained(agent: Agent, own: Own, path: Path, options: argparse.Namespace) -> RunFolder:
    """The run, begun, gone on with or found; one of other settings is refused."""
    config = TrainConfig(
        task="log",
        agent=agent,
        env="lerobot:make_maze",
        steps=options.steps,
        eval_every=options.steps,
        eval_episodes=0,
        checkpoint_every=max(1, options.steps // 4),
        run_dir=path,
    )
    return train_all({path.name: config}, own).folders[path.name]


def judged(folder: RunFolder, own: Own, options: argparse.Namespace) -> dict[str, Any]:
    """What the data and the maze say of a run, found once and kept."""
    asked = {"fqe_steps": options.fqe_steps, "episodes": options.eval_episodes}
    kept = folder.path / "judged.json"
    if kept.exists():
        document: dict[str, Any] = json.loads(kept.read_text())
        if document["asked"] == asked:
            return document
    by_data = off_policy(folder, dataset=own, steps=options.fqe_steps, settings=FIT).to_json()
    (played,) = judge(folder, episodes=options.eval_episodes).to_json()["members"]
    points = [normalized_score(MAZE, episode["return"]) for episode in played["episodes"]]
    document = {
        "asked": asked,
        "held_out": by_data["held_out"],
        "fqe": by_data["fqe"],
        "off_policy": by_data["members"][0],
        "return": played["return"],
        "points": float(np.mean(points)),
        "points_standard_error": float(np.std(points, ddof=1) / len(points) ** 0.5),
        "success": played["success"],
    }
    write_json(kept, document)
    return document


def report(document: dict[str, Any]) -> None:
    """The table as Markdown."""
    print("| format | agent | fitted Q (95%) | distance to data (95%) | points | success |")
    print("|---|---|---|---|---|---|")
    for entry in document["runs"]:
        value, distance = (entry["off_policy"][key] for key in ("value", "action_distance"))
        print(
            f"| {entry['format']} | {entry['agent']} "
            f"| {value['value']:.1f} ({value['interval'][0]:.1f} to {value['interval'][1]:.1f}) "
            f"| {distance['value']:.3f} ({distance['interval'][0]:.3f} to "
            f"{distance['interval'][1]:.3f}) "
            f"| {entry['points']:.1f} ± {entry['points_standard_error']:.1f} "
            f"| {entry['success']:.2f} |"
        )


def main() -> None:
    """Write both formats, train both agents on each, judge them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000, help="of the log")
    parser.add_argument("--steps", type=int, default=4000, help="gradient steps of each run")
    parser.add_argument("--fqe-steps", type=int, default=10_000)
    parser.add_argument("--eval-episodes", type=int, default=50)
    parser.add_argument("--runs", type=Path, default=Path("runs/lerobot"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/lerobot.json"))
    parser.add_argument("--report", action="store_true", help="only print what is there")
    options = parser.parse_args()
    if options.report:
        report(json.loads(options.out.read_text()))
        return
    places = written(options)
    data = {name: load_own(place, COLUMNS[name]) for name, place in places.items()}
    prints = {name: own.dataset.fingerprint() for name, own in data.items()}
    variance, factor = intrinsic_action_variance(data["lerobot"].dataset), published_factor("log")
    sizes: dict[str, Any] = {"hidden": (64, 64), "learning_rate": 1e-3}
    agents = (BC(**sizes), DeFlow(**sizes, delta=factor * variance.value))
    runs = []
    for name, own in data.items():
        for agent in agents:
            folder = trained(agent, own, options.runs / f"{name}-{agent.name}", options)
            entry = {"format": name, "agent": agent.name, "steps": options.steps}
            runs.append({**entry, **judged(folder, own, options)})
    dataset = data["lerobot"].dataset
    document = {
        "command": COMMAND,
        "data": f"{MAZE}, collected by d4rl_sets.py",
        "recordings": len(dataset.episode_ends),
        "transitions": dataset.transitions,
        "columns": COLUMNS,
        "same_data_in_both_formats": len(set(prints.values())) == 1,
        "hidden": [64, 64],
        "seed": SEED,
        "delta": {"factor": factor, "intrinsic_action_variance": variance.to_json()},
        "runs": runs,
        "provenance": made_by(COMMAND, {"name": MAZE, "fingerprint": prints["lerobot"]}),
    }
    write_result(options.out, document)
    report(document)


if __name__ == "__main__":
    main()
