"""`deflow data`: the commands, and the numbers that they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro

from deflow.cli.data import Generate, Inspect
from deflow.core.errors import DeFlowError
from deflow.data.dataset import Dataset
from deflow.data.inspect import describe


def run(capsys: pytest.CaptureFixture[str], command: type[Any], *args: str) -> str:
    assert tyro.cli(command, args=list(args)).run() == 0
    return capsys.readouterr().out


def test_numbers_of_a_set_made_by_hand() -> None:
    data = Dataset.from_arrays(
        observations=np.arange(10.0).reshape(5, 2),
        actions=np.full((5, 1), 0.5),
        rewards=[-1, -1, 0, -1, -2],
        terminals=[0, 0, 1, 0, 0],
    )
    numbers = json.loads(json.dumps(describe(data)))
    assert (numbers["transitions"], numbers["episodes"]) == (4, 2)
    assert numbers["rewards"]["values"] == {"-1.0": 3, "0.0": 1}
    assert numbers["returns"] == {"min": -2.0, "median": -1.5, "mean": -1.5, "max": -1.0}
    assert numbers["success_rows"] == numbers["success_episodes"] == 1
    assert numbers["episode_lengths"] == {"min": 1.0, "median": 2.0, "mean": 2.0, "max": 3.0}
    assert numbers["arrays"]["observations"]["shape"] == [5, 2]
    assert numbers["arrays"]["observations"]["column_max"] == [8.0, 9.0]
    assert numbers["bytes"] == data.nbytes == 5 * (2 + 1 + 1 + 1) * 4 + 2 * 4 * 4 + 2 * 4


def test_a_set_is_made_and_inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--data-dir", str(tmp_path))
    name = "pointmaze-medium-navigate-v0"
    made = json.loads(
        run(capsys, Generate, name, "--episodes", "2", "--workers", "1", "--json", *where)
    )
    assert made["settings"]["episodes"] == 2
    assert Path(made["file"]).exists()
    assert name in run(capsys, Generate, name, "--episodes", "2", "--workers", "1", *where)

    seen = json.loads(run(capsys, Inspect, name, "--json", "--verify", *where))
    assert seen["verified"] is True
    assert seen["train"]["transitions"] == 2000
    assert "rewards" not in seen["train"]
    counts = seen["success_rows_of_tasks"]
    assert len(counts) == 5

    task = "pointmaze-medium-navigate-singletask-v0"
    of_task = json.loads(run(capsys, Inspect, task, "--json", *where))
    assert of_task["default_task"] is True
    assert of_task["train"]["success_rows"] == counts[of_task["task"]]["train"]
    assert of_task["train"]["rewards"]["values"].keys() <= {"-1.0", "0.0"}
    for text in (run(capsys, Inspect, task, *where), run(capsys, Inspect, name, *where)):
        assert "2,000" in text
    assert "task5" in text
    assert "2,000" in run(capsys, Inspect, made["file"])


def test_own_files_are_inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.npz"
    arrays = {"observations": np.zeros((3, 2)), "actions": np.zeros((3, 1))}
    np.savez(path, **arrays, terminals=[0, 0, 1], rewards=[0.0, 1.0, 2.0])
    seen = json.loads(run(capsys, Inspect, str(path), "--json"))
    assert seen["train"]["returns"]["max"] == 3.0
    np.savez(path, **arrays, terminals=[0, 0, 1])
    with pytest.raises(DeFlowError, match="neither rewards"):
        run(capsys, Inspect, str(path))
    with pytest.raises(DeFlowError, match="There is no file"):
        run(capsys, Inspect, str(tmp_path / "absent.npz"))


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (Generate, Inspect):
        with pytest.raises(SystemExit):
            tyro.cli(command, args=["--help"])
        assert "deflow data" in capsys.readouterr().out
