"""`deflow data`: make sets and look into them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from deflow.cli.result import print_json
from deflow.cli.set_options import SetOptions

if TYPE_CHECKING:
    from deflow.data.oracles_ant import AntExpert


@dataclass
class Generate:
    """Make a set on this machine, with the oracles, experts or demonstrations that made it.

    OGBench's manipulation `play` and `noisy` sets (cube, scene, puzzle) and point-maze `navigate`
    sets, by OGBench's oracles and recipe: the files are the same for any number of workers, and
    after a kill the same command goes on. Its ant-maze `navigate` sets likewise, walked by an ant
    that was trained here. Adroit's expert sets, by DAPG's experts, and door-human-v1, from its
    demonstrations.

    Examples:
      deflow data generate cube-single-play-v0 --episodes 300 --workers 2
      deflow data generate scene-play-v0 --seed 1 --data-dir ~/sets
      deflow data generate antmaze-medium-navigate-v0 --policy runs/ant --workers 2
      deflow data generate pen-expert-v1 --policy policy_pen.npz --episodes 500
      deflow data generate door-human-v1 --demonstrations door_human_demos.npz
    """

    dataset: Positional[str]
    """The set, such as cube-single-play-v0 (or one of its tasks)."""
    episodes: int | None = None
    """Training episodes, the official number by default; a tenth as many are for validation."""
    workers: int | None = None
    """Processes that play episodes at the same time; one for each core by default. Adroit's sets
    are played in one."""
    seed: int = 0
    """Another seed makes another set."""
    policy: Path | None = None
    """The expert. Of an ant maze: the folder of a SAC run on online-ant-xy-v0, or the -expert.npz
    beside a set that it has walked. Of an Adroit set: an .npz file of its layers and scales."""
    demonstrations: Path | None = None
    """The demonstrations of door-human-v1: an .npz file of actions and initial states."""
    data_dir: Path | None = None
    """The data folder; by default DEFLOW_DATA_DIR, or the user's cache."""
    overwrite: bool = False
    """Replace files that were made with other settings (not Adroit's)."""
    json: bool = False
    """Print one JSON document instead of text."""

    def run(self) -> int:
        """Make the set and print where it is."""
        from deflow.data.provenance import provenance_file, read_json

        target = self._made()
        report = {"file": str(target), **read_json(provenance_file(target))}
        if self.json:
            print_json(report)
        else:
            rows = [("folder", str(target.parent))]
            for name, entry in report["files"].items():
                rows.append((name, _size(entry["bytes"])))
                rows.append(("  sha256", entry["sha256"]))
            _print_table(target.stem, rows)
        return 0

    def _made(self) -> Path:
        """The file, made by whatever makes this set."""
        from deflow.core.errors import DeFlowError
        from deflow.data.adroit import EPISODES, EXPERTS, HUMAN, replay_door_human, roll_expert
        from deflow.data.folder import data_folder
        from deflow.data.generate import generate
        from deflow.data.recipes import recipe_for
        from deflow.envs.d4rl import make_d4rl

        sources = {**dict.fromkeys(EXPERTS, "policy"), HUMAN: "demonstrations"}
        wanted, folder = sources.get(self.dataset), data_folder(self.data_dir)
        walked = wanted is None and recipe_for(self.dataset).needs_expert
        for option in ("policy", "demonstrations"):
            given = getattr(self, option) is not None
            if given is not (option == wanted) and not (walked and option == "policy"):
                does = "takes no" if given else "needs"
                raise DeFlowError(
                    f"{self.dataset} {does} --{option}: `deflow data generate --help`."
                )
        if wanted is not None:
            self._refuse_what_adroit_lacks(replayed=self.dataset == HUMAN)
        if self.policy and self.dataset in EXPERTS:
            count = EPISODES if self.episodes is None else self.episodes
            where = (self.policy, folder, count, self.seed)
            return roll_expert(self.dataset, *where, make_env=make_d4rl)
        if self.demonstrations:
            return replay_door_human(self.demonstrations, folder, make_env=make_d4rl)
        return generate(
            self.dataset,
            episodes=self.episodes,
            workers=(os.cpu_count() or 1) if self.workers is None else self.workers,
            seed=self.seed,
            data_dir=folder,
            overwrite=self.overwrite,
            expert=self._expert(),
        )

    def _refuse_what_adroit_lacks(self, *, replayed: bool) -> None:
        """Raise `DeFlowError` for an option that could not be carried out."""
        from deflow.core.errors import DeFlowError

        if self.overwrite:
            raise DeFlowError(
                f"{self.dataset} is never overwritten: delete its .hdf5 and .json files first, or "
                "choose another --data-dir."
            )
        if self.workers not in (None, 1):
            raise DeFlowError(f"{self.dataset} is played in one process; leave --workers.")
        if replayed and self.episodes is not None:
            raise DeFlowError(
                f"{self.dataset} has an episode for each demonstration in the file; leave "
                "--episodes."
            )
        if replayed and self.seed:
            raise DeFlowError(f"{self.dataset} is replayed, and nothing is drawn; leave --seed.")

    def _expert(self) -> AntExpert | None:
        """Who walks, where --policy says; only then is JAX needed."""
        if self.policy is None:
            return None
        from deflow.training.ant_expert import ant_expert

        return ant_expert(self.policy)


@dataclass
class Inspect(SetOptions):
    """Show what a set holds: shapes, ranges, returns, terminations (successes in OGBench's sets and
    D4RL's ant mazes, where only the goal ends an episode), episode lengths, memory, and what looks
    wrong in it.

    Examples:
      deflow data inspect cube-single-play-v0
      deflow data inspect cube-single-play-singletask-task1-v0 --json
      deflow data inspect my_arrays.npz
      deflow data inspect log.parquet --columns observations=state episode=run
      deflow data inspect log.npz --action-bounds -2 2
      deflow data inspect minari:door/human-v2
    """

    dataset: Positional[str]
    """A set's name, a task's name (then with its rewards), your own file (.npz, .hdf5, .parquet) or
    folder (Parquet, LeRobot, Minari), or minari: and a set's id."""
    verify: bool = False
    """Also compare the files' checksums with those kept when they were made or fetched."""

    def run(self) -> int:
        """Read the set and print its numbers."""
        from deflow.data.inspect import inspect

        report = inspect(
            self.dataset,
            self.data_dir,
            columns=self.columns or None,
            bounds=self.bounds,
            verify=self.verify,
        )
        if self.json:
            print_json(report)
            return 0
        title = report.get("task") or report.get("dataset") or report["file"]
        if report.get("default_task"):
            title += " (the published default task)"
        rows = [("file", report["file"])]
        if report["verified"]:
            rows.append(("checksums", "as they were kept"))
        for split in ("train", "validation"):
            if split in report:
                rows += [(f"{split}: {key}", text) for key, text in _lines(report[split])]
        for task, counts in report.get("success_rows_of_tasks", {}).items():
            number = task.removesuffix("-v0").rsplit("-", 1)[-1]
            rows.append((f"success rows of {number}", _pairs(counts)))
        rows += [("suspicious", finding) for finding in report["suspicious"]]
        _print_table(title, rows)
        return 0


def _lines(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    """A split's description as a few lines of text."""
    lines = [
        ("episodes", f"{numbers['episodes']:,}"),
        ("transitions", _transitions(numbers["transitions"], numbers["rows"])),
        ("episode lengths", _pairs(numbers["episode_lengths"])),
    ]
    for name, array in numbers["arrays"].items():
        spread = _pairs({key: array[key] for key in ("min", "max", "mean", "std")})
        lines.append((name, f"{'x'.join(map(str, array['shape']))} {array['dtype']}, {spread}"))
    if "rewards" in numbers:
        values = numbers["rewards"]["values"]
        rewards = numbers["rewards"]
        spread = _pairs({key: rewards[key] for key in ("min", "median", "mean", "max")})
        word = "success" if "success_rows" in numbers else "termination"
        lines += [
            ("rewards", spread if values is None else _pairs(values, "rows")),
            ("returns", _pairs(numbers["returns"])),
            (
                "success" if word == "success" else "terminations",
                f"{numbers[f'{word}_rows']:,} rows in {numbers[f'{word}_episodes']:,} episodes",
            ),
        ]
    lines.append(("memory", _size(numbers["bytes"])))
    return lines


def _transitions(count: int, rows: int) -> str:
    """How many, and why they are fewer than the file has rows."""
    if count == rows:
        return f"{count:,}"
    return (
        f"{count:,} of {rows:,} rows; {rows - count:,} end a trajectory that was cut, and what "
        "follows them is not in the file"
    )


def _size(count: int) -> str:
    """`12.3 MB`, or kB where that would be nothing."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _pairs(values: dict[str, Any], unit: str = "") -> str:
    """`min 1, max 3`, or with a unit `-1.0: 7 rows, 0.0: 2 rows`."""
    if unit:
        return ", ".join(f"{key}: {value:,} {unit}" for key, value in values.items())
    return ", ".join(
        f"{key} {value:,}" if isinstance(value, int) else f"{key} {value:.4g}"
        for key, value in values.items()
    )


def _print_table(title: str, rows: list[tuple[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, text)
    Console().print(table)
