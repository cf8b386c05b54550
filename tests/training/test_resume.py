"""A run that was stopped ends as if it had not been: bit for bit, line for line."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import toy
from tests.training.runs import Training, assert_same, untimed

from deflow import DeFlowError, load_policy
from deflow.data.dataset import Dataset
from deflow.training import checkpoint
from deflow.training.finetune import finetune
from deflow.training.recorder import Recorder
from deflow.training.run_folder import RunFolder
from deflow.training.train import resume
from deflow.training.trainer import Trainer as Loop


class Stop(BaseException):
    """What a test raises where a kill would fall."""


def unfinished(folder: RunFolder) -> RunFolder:
    """As a stop between the last evaluation and the summary leaves a run."""
    (folder.path / "summary.json").unlink()
    return folder


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
    ("joint", Recorder, "evaluate", 0),
    ("joint", checkpoint, "save", 1),
    ("flow_first", Loop, "_chunk", 2),
    ("flow_first", Loop, "_rows_left_by", 0),
    ("flow_first", Loop, "_chunk", 7),
    ("shared_flow", Loop, "_chunk", 3),
    ("shared_flow", Loop, "_chunk", 6),
]


SLOW = pytest.mark.slow
FEW = STOPS[1:3] + STOPS[5:8]
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
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    resume(folder.path, data)
    resume(str(folder.path))  # Its data are not asked for, be they gone.
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before
    assert_same(folder, joint)


def test_other_data_are_refused_before_anything_is_written(
    joint: RunFolder, copied: Callable[[RunFolder], RunFolder]
):
    folder = unfinished(copied(joint))
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    with pytest.raises(DeFlowError, match=r"trained on other data .*transitions then, .* now"):
        resume(folder.path, toy.dataset(seed=1))
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before


def test_a_folder_without_a_run_is_refused(tmp_path: Path, data: Dataset):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DeFlowError, match="not a run folder"):
            resume(path, data)


def test_a_run_on_own_data_asks_for_them(
    joint: RunFolder, copied: Callable[[RunFolder], RunFolder]
):
    with pytest.raises(DeFlowError, match="trained on your own data"):
        resume(unfinished(copied(joint)).path)


@pytest.mark.parametrize("option", [{"workers": -1}, {"env_patience": 0.0}])
def test_an_option_out_of_range_is_refused(joint: RunFolder, data: Dataset, option: Any):
    with pytest.raises(DeFlowError, match=next(iter(option))):
        resume(joint.path, data, **option)


def test_a_stop_while_judging_costs_the_judgement_alone(
    training: Training,
    data: Dataset,
    joint: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    with monkeypatch.context() as patch:
        stop_at(patch, Recorder, "evaluate", 1)
        with pytest.raises(Stop):
            training(schedule="joint", env=toy.ENV, eval_episodes=4, run_dir=tmp_path / "it")
    stopped = RunFolder(tmp_path / "it")
    # Of the two members one may have been written down.
    stopped.append(stopped.evaluations, joint.read_lines(joint.evaluations)[2:3])
    monkeypatch.setattr(Loop, "_chunk", lambda *_: pytest.fail("a step was done again"))
    assert_same(resume(stopped.path, data), joint)


# One process at a time -------------------------------------------------------------------------


def test_a_run_that_another_process_trains_is_refused_and_may_be_read(
    joint: RunFolder, data: Dataset, copied: Callable[[RunFolder], RunFolder]
):
    folder = unfinished(copied(joint))
    with folder.locked():
        with pytest.raises(DeFlowError, match=r"Another process is training .*deflow resume"):
            resume(folder.path, data)
        assert not (folder.path / "summary.json").exists()
        assert load_policy(folder.path, seed=0)(np.zeros(toy.OBS)).shape == (toy.ACT,)
    assert_same(resume(folder.path, data), joint)


@pytest.mark.parametrize("begin", ["train", "resume", "finetune"])
def test_whoever_trains_holds_the_folder(
    begin: str,
    joint: RunFolder,
    data: Dataset,
    copied: Callable[[RunFolder], RunFolder],
    training: Training,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    held: list[Path] = []

    def run(self: Loop, resume: bool = False) -> None:
        with pytest.raises(DeFlowError, match="Another process"), self.folder.locked():
            pass
        held.append(self.folder.path)

    monkeypatch.setattr(Loop, "run", run)
    if begin == "train":
        folder = training(run_dir=tmp_path / "it")
    elif begin == "resume":
        folder = resume(unfinished(copied(joint)).path, data)
    else:
        folder = finetune(joint.path, 10, run_dir=tmp_path / "it", dataset=data)
    assert held == [folder.path]
    with folder.locked():
        pass


def test_a_killed_process_holds_nothing(tmp_path: Path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from deflow.training.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked(): print(flush=True); time.sleep(600)"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"\n"
        with pytest.raises(DeFlowError, match="Another process"), RunFolder(tmp_path).locked():
            pass
        process.kill()
    with RunFolder(tmp_path).locked():
        pass


def test_a_file_system_without_locks_keeps_nobody_from_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with RunFolder(tmp_path).locked():
        pass
    assert "Nothing here keeps a second process from training" in capsys.readouterr().err
