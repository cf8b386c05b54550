"""D4RL's points of sets that are made here, beside the published ones.

    python benchmarks/d4rl_sets.py --dapg FOLDER

Makes pen-expert-v1 and door-expert-v1 with DAPG's experts and door-human-v1 from its demonstrations
(`policy_pen.npz`, `policy_door.npz`, `door_human_demos.npz` in FOLDER), and maze2d-umaze-v1 with a
controller of our own; trains six systems on the first three and both Decision Flows on the maze, at
3x256; plays 100 episodes with each.

All take as many gradient steps; Decision Flow's behaviour and critics too, and its last phase,
whose step costs most, a quarter of them. 8,000 steps are 310,000 GFLOP in all: at the 120 GFLOP a
second of two cores 43 minutes, about an hour with data, compilation and playing. They go into one
seed: of three, each would have a third of the steps, where all systems are still far from done.

Writes `benchmarks/results/d4rl_sets.json` and `docs/images/d4rl_sets.png` after each set. What is
made or trained is kept, what was stopped goes on; `--report` prints the tables in Markdown.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from deflow.agents.registry import from_settings, preset
from deflow.core.errors import DeFlowError
from deflow.core.files import sync, write_json, written_whole
from deflow.core.progress import progress_bar
from deflow.data.adroit import replay_door_human, roll_expert
from deflow.data.d4rl import normalized_score
from deflow.data.folder import ensure_writable, sole_maker
from deflow.data.hdf5 import read_hdf5
from deflow.data.provenance import file_entry, provenance_file, read_json
from deflow.data.recipes import Rows
from deflow.envs.d4rl import DIFFERENCES, make_d4rl
from deflow.experiments.lineup import record, train_all
from deflow.training.config import TrainConfig
from deflow.training.curve import save_figure
from deflow.training.judge import judge
from deflow.training.run_folder import RunFolder

COMMAND = "python benchmarks/d4rl_sets.py --dapg FOLDER"
MAZE = "maze2d-umaze-v1"
DECISION_FLOWS = ("df-dir", "df-div")
ALL = ("bc", "iql", "fql", "deflow", *DECISION_FLOWS)
SYSTEMS = {
    **dict.fromkeys(("pen-expert-v1", "door-expert-v1", "door-human-v1"), ALL),
    MAZE: DECISION_FLOWS,
}
POLICY_SHARE, SEED = 4, 0
"""Decision Flow's last phase takes one of so many steps; of the data, and of the run by default."""
SPEED, NOISE = 4.0, 0.5
"""Of the maze's ball, for each cell to go; and of its actions."""

WAY = np.array([(1, 1), (1, 2), (1, 3), (2, 3), (3, 3), (3, 2), (3, 1)])
"""The free cells of the U-maze, from end to end."""
PUBLISHED: dict[str, dict[str, tuple[int, int | None]]] = {
    "pen-expert-v1": {"bc": (110, None), "iql": (128, None), "fql": (142, 6), "deflow": (138, 5)},
    "door-expert-v1": {"bc": (105, None), "iql": (107, None), "fql": (104, 1)},
    "door-human-v1": {"bc": (2, None), "iql": (3, None), "fql": (0, 0)},
    MAZE: {},
}
"""Means and deviations in DeFlow's Table 7 (arXiv 2601.10471), which takes those of others from
FQL's Table 3 (arXiv 2502.02538). Left out is DeFlow on the doors, which our copy does not show with
confidence. The table has no Maze2D, and none of Decision Flow's (arXiv 2505.20350) could be read.
"""

SOURCES = {
    **dict.fromkeys(("pen-expert-v1", "door-expert-v1"), "D4RL's has 5,000 and other seeds"),
    "door-human-v1": "DAPG's 25 demonstrations, replayed anew",
    MAZE: "D4RL's has a million rows, by its planner rather than a controller of our own",
}


def make(task: str, options: argparse.Namespace) -> None:
    """The set of a task, made or found."""
    folder: Path = options.runs / "data"
    if task == MAZE:
        collect_maze(folder / f"{MAZE}.hdf5", options.maze_steps)
    elif task == "door-human-v1":
        replay_door_human(options.dapg / "door_human_demos.npz", folder, make_env=make_d4rl)
    else:
        policy = options.dapg / f"policy_{task.split('-')[0]}.npz"
        roll_expert(task, policy, folder, options.episodes, make_env=make_d4rl)


def collect_maze(target: Path, steps: int) -> None:
    """The maze's set in D4RL's schema, unless it is there."""
    import h5py

    settings = {"steps": steps, "seed": SEED}
    ensure_writable(target.parent)
    with sole_maker(target.parent, MAZE):
        if target.exists():
            if read_json(provenance_file(target)).get("settings") != settings:
                raise DeFlowError(
                    f"{target} was made with other settings; delete it, or its folder."
                )
            return
        columns = walk_maze(steps)
        with written_whole(target) as temporary:
            with h5py.File(temporary, "w") as file:
                for name, column in columns.items():
                    file.create_dataset(name, data=column, compression="gzip")
            sync(temporary)
            # Said first: a file of which nothing is known would be refused for ever.
            files = {target.name: file_entry(temporary)}
            write_json(provenance_file(target), {"settings": settings, "files": files})


def walk_maze(steps: int) -> dict[str, np.ndarray[Any, Any]]:
    """A ball on its way from one random cell to another.

    Rewards are the environment's, for its own fixed goal. A trajectory is cut where the ball has
    arrived, or after 300 steps on one way; the next goes on from there.
    """
    env: Any = make_d4rl(MAZE).unwrapped
    rng, rows, age = np.random.default_rng(SEED), Rows(), 0
    observation, _ = env.reset(seed=SEED)
    goal = rng.integers(len(WAY))
    with progress_bar() as bar:
        shown = bar.add_task(f"{MAZE}: steps", total=steps, note="")
        for _ in range(steps):
            here = int(np.linalg.norm(WAY - observation[:2], axis=1).argmin())
            aim = WAY[here + np.sign(goal - here)] - observation[:2]
            force = 0.5 * (SPEED * aim - observation[2:])
            action = np.clip(force + rng.normal(0, NOISE, 2), -1, 1)
            after, reward, *_ = env.step(action)
            age += 1
            over = age == 300 or bool(np.linalg.norm(after[:2] - WAY[goal]) < 0.3)
            rows.append(observations=observation, actions=action, rewards=reward)
            rows.append(terminals=False, timeouts=over, **{"infos/goal": WAY[goal]})
            observation = after
            if over:
                goal, age = rng.integers(len(WAY)), 0
            bar.advance(shown)
    columns = rows.stack()
    return {**columns, "timeouts": columns["timeouts"].astype(np.bool_)}


def config(task: str, name: str, options: argparse.Namespace) -> TrainConfig:
    """One system on one set, with its published settings but for size, rate and steps."""
    settings = {"learning_rate": options.rate, **preset(name, task)}
    settings["hidden"] = tuple(options.hidden)
    steps = options.steps
    if name in DECISION_FLOWS:
        settings |= {"behavior_steps": steps, "value_steps": steps}
        settings |= {"expectile": 0.9} if task == MAZE else {}
        steps = max(1, steps // POLICY_SHARE)
    return TrainConfig(
        task=task,
        agent=from_settings(name, settings),
        seeds=tuple(options.seeds),
        steps=steps,
        eval_every=steps,
        eval_episodes=options.eval_episodes,
        checkpoint_every=2000,
        run_dir=options.runs / task / name,
        data_dir=options.runs / "data",
    )


def entry(task: str, name: str, folder: RunFolder) -> dict[str, Any]:
    """A finished run's points at its last step, over all episodes of all seeds."""
    records = folder.read_lines(folder.evaluations)
    last = [r for r in records if r["total_step"] == records[-1]["total_step"]]
    found = record(name, folder)
    del found["run_dir"], found["members"]
    found["provenance"]["command"] = COMMAND
    flow = {"base_flow": points_of(task, base_flow(folder))} if name == "deflow" else {}
    lines = [m for m in folder.read_lines(folder.metrics) if "critic/q_mean" in m]
    values = {"mean_q": {m["total_step"]: round(m["critic/q_mean"], 2) for m in lines}}
    return {
        **found,
        **points_of(task, last),
        **flow,
        **(values if lines else {}),
        "published": PUBLISHED[task].get(name),
    }


def base_flow(folder: RunFolder) -> list[dict[str, Any]]:
    """What the flow that DeFlow refines does by itself, played once and kept."""
    kept = folder.path / "base_flow.json"
    if not kept.exists():
        count = folder.config().eval_episodes
        write_json(kept, judge(folder, episodes=count, policy="prior").to_json())
    members: list[dict[str, Any]] = json.loads(kept.read_text())["members"]
    return members


def points_of(task: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    """D4RL's points over all episodes of some evaluations."""
    points = [normalized_score(task, e["return"]) for r in records for e in r["episodes"]]
    return {
        "points": round(float(np.mean(points)), 2),
        "standard_error": round(float(np.std(points, ddof=1)) / len(points) ** 0.5, 2),
        "episodes": len(points),
    }


def data_of(task: str, file: Path) -> dict[str, Any]:
    """What a set holds; the points of those who made it, where its trajectories are episodes."""
    arrays = read_hdf5(file, wanted=("rewards", "terminals", "timeouts"))
    ends = np.flatnonzero(arrays["terminals"] | arrays["timeouts"])
    parts = np.split(arrays["rewards"], ends + 1)[: len(ends)]
    points = [normalized_score(task, part.sum(dtype=float)) for part in parts]
    return {
        "trajectories": len(ends),
        "rows": len(arrays["rewards"]),
        "points": None if task == MAZE else round(float(np.mean(points)), 1),
        "file": file_entry(file),
    }


def differences(task: str, data: dict[str, Any], options: argparse.Namespace) -> list[str]:
    """In what these numbers differ from the published ones."""
    widths, first = "x".join(map(str, options.hidden)), task.split("-")[0]
    groups = {"all", first}
    return [
        f"data: {data['trajectories']:,} trajectories, {data['rows']:,} rows; {SOURCES[task]}",
        *(f"environment: {d.what}" for d in DIFFERENCES if groups & {*d.environments.split(", ")}),
        f"training: {options.steps:,} gradient steps instead of 500,000, networks of {widths}, "
        f"rate {options.rate:g}, {len(options.seeds)} seed(s) instead of 8",
        "published: "
        + ("deviations over seeds; BC and IQL of other code (CORL)" if PUBLISHED[task] else "none"),
    ]


def report(options: argparse.Namespace) -> dict[str, Any]:
    """All that is finished, as JSON and as a picture."""
    tasks, missing = [], []
    for task, names in SYSTEMS.items():
        folders = {name: RunFolder(options.runs / task / name) for name in names}
        systems = [entry(task, name, run) for name, run in folders.items() if run.finished()]
        done = {system["name"] for system in systems}
        missing += [f"{task} {name}" for name in names if name not in done]
        if done:
            data = data_of(task, options.runs / "data" / f"{task}.hdf5")
            told = {"differences": differences(task, data, options)}
            tasks.append({"task": task, "data": data, "systems": systems, **told})
    document = {"command": COMMAND, "tasks": tasks, "missing": missing}
    if tasks:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, document)
        draw(tasks, options.figure)
    return document


def draw(tasks: list[dict[str, Any]], path: Path) -> None:
    """Points by system, a panel for each set; published ones as dashes."""
    figure = Figure(figsize=(3.4 * len(tasks), 3.6), layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    steps = max(system["steps"] for task in tasks for system in task["systems"])
    for axes, task in zip(panels, tasks, strict=True):
        systems = task["systems"]
        names = [system["name"] for system in systems]
        means, errors = ([s[key] for s in systems] for key in ("points", "standard_error"))
        axes.bar(names, means, yerr=errors, capsize=3, label=f"here, {steps:,} steps")
        flows = [(s["name"], s["base_flow"]["points"]) for s in systems if "base_flow" in s]
        if flows:
            axes.plot(*zip(*flows, strict=True), "D", color="tab:orange", label="its base flow")
        known = [(s["name"], s["published"][0]) for s in systems if s["published"]]
        if known:
            axes.plot(
                *zip(*known, strict=True),
                "_",
                color="black",
                markersize=18,
                label="paper, 500,000 steps",
            )
        if task["data"]["points"] is not None:
            axes.axhline(task["data"]["points"], color="0.6", linestyle=":", label="the data")
        heights = [*means, *(points for _, points in known + flows)]
        if max(heights) < 10:  # The line of the data, far above, would leave nothing to see.
            axes.set_ylim(min(0, *heights) - 1.5, max(heights) + 1.5)
        axes.tick_params("x", rotation=45)
        axes.set_title(task["task"], size=10)
        axes.grid(alpha=0.3, axis="y")
    panels[0].set_ylabel("D4RL points")
    labels = panels[0].get_legend_handles_labels()
    figure.legend(*labels, loc="outside lower center", ncols=len(labels[0]), fontsize=8)
    save_figure(figure, path)


def tables(document: dict[str, Any]) -> None:
    """The tables in Markdown, and in what they differ from the published ones."""
    for task in document["tasks"]:
        print(f"\n**{task['task']}** ({task['data']['rows']:,} rows)\n")
        print("| system | here | published |\n|---|---|---|")
        for system in task["systems"]:
            paper = [str(part) for part in system["published"] or "-" if part is not None]
            here = f"{system['points']:.1f} ± {system['standard_error']:.1f}"
            print(f"| {system['name']} | {here} | {' ± '.join(paper)} |")
            if flow := system.get("base_flow"):
                here = f"{flow['points']:.1f} ± {flow['standard_error']:.1f}"
                print(f"| its base flow alone | {here} | - |")
        print("", *(f"- {line}" for line in task["differences"]), sep="\n")
    if document["missing"]:
        print(f"\nNot trained yet: {', '.join(document['missing'])}.")


def main() -> None:
    """Make the sets, train what is left, write after each set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dapg", type=Path, help="the folder of experts and demonstrations")
    parser.add_argument("--tasks", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--agents", nargs="+", default=ALL, choices=ALL)
    parser.add_argument("--episodes", type=int, default=500, help="of each expert set")
    parser.add_argument("--maze-steps", type=int, default=200_000, help="rows of the maze's set")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 256, 256])
    parser.add_argument("--seeds", type=int, nargs="+", default=[SEED])
    parser.add_argument("--eval-episodes", type=int, default=100)
    parser.add_argument("--runs", type=Path, default=Path("runs/d4rl_sets"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/d4rl_sets.json"))
    parser.add_argument("--figure", type=Path, default=Path("docs/images/d4rl_sets.png"))
    parser.add_argument("--report", action="store_true", help="only print what is there")
    options = parser.parse_args()
    if options.report:
        tables(json.loads(options.out.read_text()))
        return
    if options.dapg is None:
        parser.error("--dapg FOLDER is needed: it holds DAPG's experts and demonstrations")
    for task in options.tasks:  # All data first: what is wrong with --dapg is said at once.
        make(task, options)
    for task in options.tasks:
        for name in SYSTEMS[task]:
            if name in options.agents:
                train_all({name: config(task, name, options)}, None)
        document = report(options)
    tables(document)


if __name__ == "__main__":
    main()
