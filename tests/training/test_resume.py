"""A run that was stopped ends as if it had not been: bit for bit, line for line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests import toy
from tests.training.runs import Training, assert_same, untimed

from deflow import DeFlowError
from deflow.data.dataset import Dataset
from deflow.training import checkpoint
from deflow.training.recorder import Recorder
from deflow.training.run_folder import RunFolder
from deflow.training.train import resume
from deflow.training.trainer import Trainer as Loop


class Stop(BaseException):
    """What a test raises where a kill would fall."""


def stop_at(patch: pytest.MonkeyPatch, where: Any, name: str, call: int) -> None:
    """Let a function do its work `call` times, and stop the run at the next."""
    right: Callable[..., Any] = getattr(where, name)
    calls = 0

    def counted(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        if calls == call:
            raise Stop
        calls += 1
        return right(*arguments, **keywords)

    patch.setattr(where, name, counted)


# Four chunks a phase, a checkpoint after each, a line of metrics and an evaluation after each two.
STOPS = [
    ("joint", Loop, "_chunk", 0),
    ("joint", Loop, "_chunk", 3),
    ("joint", Recorder, "evaluate", 1),
    ("joint", checkpoint, "save", 1),
    ("flow_first", Loop, "_chunk", 2),
    ("flow_first", Loop, "_rows_left_by", 0),
    ("flow_first", Loop, "_chunk", 7),
    ("shared_flow", Loop, "_chunk", 3),
    ("shared_flow", Loop, "_chunk", 6),
]


SLOW = pytest.mark.slow
FEW = STOPS[1:3] + STOPS[5:7]
"""Those that differ least from others, and are left to the slow tests."""


@pytest.mark.parametrize(
    ("name", "where", "function", "call"),
    [
        pytest.param(*stop, id=f"{stop[0]}-{stop[2]}-{stop[3]}", marks=SLOW if stop in FEW else ())
        for stop in STOPS
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one(
    name: str,
    where: Any,
    function: str,
    call: int,
    training: Training,
    data: Dataset,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
):
    whole: RunFolder = request.getfixturevalue(name)
    config = whole.config()
    with monkeypatch.context() as patch:
        stop_at(patch, where, function, call)
        with pytest.raises(Stop):
            training(
                schedule=config.schedule,
                share_flow=config.share_flow,
                env=toy.ENV,
                eval_episodes=4,
                run_dir=tmp_path / "it",
            )
    assert not (tmp_path / "it" / "summary.json").exists()
    resumed = resume(tmp_path / "it", data)
    assert_same(resumed, whole)
    assert untimed(resumed.read_json("summary.json")["members"]) == untimed(
        whole.read_json("summary.json")["members"]
    )


@pytest.mark.slow
def test_a_second_stop_is_no_worse_than_the_first(
    training: Training,
    data: Dataset,
    flow_first: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    path = tmp_path / "it"
    with monkeypatch.context() as patch:
        stop_at(patch, Loop, "_chunk", 1)
        with pytest.raises(Stop):
            training(schedule="flow-first", env=toy.ENV, eval_episodes=4, run_dir=path)
    for where, function, call in (
        (Loop, "_chunk", 4),
        (Recorder, "evaluate", 0),
        (Loop, "_chunk", 1),
    ):
        with monkeypatch.context() as patch:
            stop_at(patch, where, function, call)
            with pytest.raises(Stop):
                resume(path, data)
    assert_same(resume(path, data), flow_first)


def test_a_finished_run_is_left_as_it_is(
    joint: RunFolder, data: Dataset, copied: Callable[[RunFolder], RunFolder]
):
    folder = copied(joint)
    files = ("metrics.jsonl", "evaluations.jsonl", "summary.json", "config.json")
    before = {name: (folder.path / name).read_text() for name in files}
    resume(folder.path, data)
    assert {name: (folder.path / name).read_text() for name in files} == before
    assert_same(folder, joint)


def test_other_data_are_refused_before_anything_is_written(
    joint: RunFolder, copied: Callable[[RunFolder], RunFolder]
):
    folder = copied(joint)
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    with pytest.raises(DeFlowError, match=r"trained on other data .*transitions then, .* now"):
        resume(folder.path, toy.dataset(seed=1))
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before


def test_a_folder_without_a_run_is_refused(tmp_path: Path, data: Dataset):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DeFlowError, match="not a run folder"):
            resume(path, data)


def test_a_run_on_own_data_asks_for_them(joint: RunFolder):
    with pytest.raises(DeFlowError, match="data"):
        resume(joint.path)
