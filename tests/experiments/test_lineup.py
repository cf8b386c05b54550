"""What training several families one after another promises, whichever command asks for it."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.experiments.test_compare import TINY

from deflow.agents.fql import FQL
from deflow.cli import main
from deflow.core.errors import DeFlowError
from deflow.core.types import Spec
from deflow.experiments import lineup
from deflow.training.config import TrainConfig
from deflow.training.run_folder import RunFolder
from deflow.training.task import Job


def test_an_agent_that_fails_does_not_keep_the_others_from_being_trained(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """BC diverges at its second step; FQL comes after it."""
    out = tmp_path / "out"
    line = ["compare", "toy", "--data", file, "--out", out, "--agents", "bc", "fql", *TINY]
    words = [str(word) for word in [*line, "--set", "bc.learning_rate=1e30", "--json"]]
    assert main.run(words) == 1
    heard = capsys.readouterr()
    document = json.loads(heard.out)
    assert [record["name"] for record in document["agents"]] == ["fql"]
    assert list(document["failed"]) == ["bc"]
    assert "No member of the run is left" in document["failed"]["bc"]
    assert "bc failed: No member of the run is left" in " ".join(heard.err.split())
    assert json.loads((out / "compare.json").read_text()) == document
    assert not RunFolder(out / "bc").finished()


def lone(path: Path, **options: Any) -> dict[str, TrainConfig]:
    return {"fql": TrainConfig("toy", FQL(hidden=(8,)), run_dir=path / "fql", steps=5, **options)}


def test_a_run_that_goes_on_has_the_patience_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    configs = lone(tmp_path, env_patience=600.0, workers=3, data_dir=tmp_path)
    job = SimpleNamespace(spec=Spec(4, 2, (-1.0, 0.0), 5), description={"fingerprint": ""})
    RunFolder.create(tmp_path / "fql", configs["fql"], job.description, job.spec, {})
    heard: list[Any] = []
    monkeypatch.setattr(lineup, "prepare", lambda *_: job)
    monkeypatch.setattr(lineup, "resume", lambda path, data, *where: heard.append(where))
    lineup.train_all(configs, None)
    assert heard == [(tmp_path, 3, 600.0)]


def test_where_none_can_be_trained_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def train(*_: Any) -> None:
        raise DeFlowError("No member of the run is left.")

    job = Job(None, None, Spec(4, 2, (-1.0, 0.0), 5), {"fingerprint": "a"})
    monkeypatch.setattr(lineup, "prepare", lambda *_: job)
    monkeypatch.setattr(lineup, "train", train)
    with pytest.raises(DeFlowError, match="No member of the run is left"):
        lineup.train_all(lone(tmp_path), None)


def test_a_fault_does_not_keep_the_others_from_being_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def train(config: TrainConfig, _: Any) -> None:
        if config.seeds == (0,):
            raise RuntimeError("out of memory\nwhile doing this")

    job = Job(None, None, Spec(4, 2, (-1.0, 0.0), 5), {"fingerprint": "a"})
    monkeypatch.setattr(lineup, "prepare", lambda *_: job)
    monkeypatch.setattr(lineup, "train", train)
    configs = {"a": lone(tmp_path / "a")["fql"], "b": lone(tmp_path / "b", seeds=(1,))["fql"]}
    trained = lineup.train_all(configs, None)
    assert trained.failed == {"a": "RuntimeError: out of memory"}
    assert list(trained.folders) == ["b"]


def test_the_data_that_were_checked_are_let_go_before_an_agent_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    held: list[weakref.ref[Any]] = []

    def prepare(*_: Any) -> Any:
        spec = Spec(4, 2, (-1.0, 0.0), 5)
        job = Job(None, None, spec, {"fingerprint": "a"})
        held.append(weakref.ref(job))
        return job

    def train(*_: Any) -> None:
        gc.collect()
        assert [job() for job in held] == [None]

    monkeypatch.setattr(lineup, "prepare", prepare)
    monkeypatch.setattr(lineup, "train", train)
    assert list(lineup.train_all(lone(tmp_path), None).folders) == ["fql"]
