"""What is wrong with a configuration is said before any work, and nothing is written."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import toy
from tests.training.runs import Training

from deflow import DeFlow, DeFlowError, train
from deflow.agents.fql import FQL
from deflow.agents.idql import IDQL
from deflow.data.dataset import Dataset
from deflow.training import checkpoint, run_folder
from deflow.training.config import ANYTHING, TrainConfig
from deflow.training.finetune import finetune
from deflow.training.run_folder import RunFolder


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("steps", 0, "steps must be at least 1"),
        ("eval_every", 0, "eval_every"),
        ("log_every", -1, "log_every"),
        ("checkpoint_every", -1, "checkpoint_every"),
        ("chunk", 0, "chunk"),
        ("eval_episodes", -1, "eval_episodes"),
        ("workers", -1, "workers"),
        ("keep_checkpoints", 0, "keep_checkpoints"),
        ("eval_seed", -1, "eval.seed"),
        ("seeds", (), "--seeds"),
        ("seeds", (1, 1), "each seed once"),
        ("seeds", (-1,), "from 0 up"),
        ("seeds", (2**32,), "seed"),
        ("schedule", "flow_first", "joint or flow-first"),
        ("share_flow", True, "only with --schedule flow-first"),
        ("flow_from", "somewhere", "only with --schedule flow-first"),
        ("over", {"hidden": (1.0,)}, "hidden cannot vary"),
        ("over", {"detla": (1.0,)}, "no setting 'detla'; did you mean delta"),
        ("over", {"delta": (0.1, -1.0)}, "delta must be above 0"),
        ("over", {"delta": (0.1, 0.1)}, "delta"),
        ("over", {"delta": ()}, "delta"),
        ("over", {"delta": (0.001, 0.0010000004)}, "would be called seed0-delta0.001"),
        ("agent", DeFlow(delta=0.0), "delta must be above 0"),
        ("agent", DeFlow(batch_size=256.0), "takes a whole number, but it is 256.0"),
        ("steps", 1.5, "steps must be a whole number, but it is 1.5"),
        ("steps", "10", "steps must be a whole number"),
        ("online_steps", "10", "online_steps must be a whole number"),
        ("seeds", 3, r"seeds must be several whole numbers, such as \[0, 1\]"),
        ("over", {"delta": 0.1}, r'over must be several .*, such as \{"delta": \[0.001, 0.01\]\}'),
        ("env", toy.make, "env must be written as 'module:make'"),
        ("dataset", toy.arrays(2), r"Dataset.from_arrays\(\*\*arrays\)"),
    ],
)
def test_an_option_out_of_range_is_named(
    data: Dataset, tmp_path: Path, option: str, value: Any, said: str
):
    options = {**toy.SHORT, "agent": DeFlow(**toy.SMALL), option: value}
    options = {"dataset": data, **options}
    with pytest.raises(DeFlowError, match=said) as refusal:
        train("toy", run_dir=tmp_path / "it", **options)
    assert str(refusal.value).endswith((".", "?"))
    assert not (tmp_path / "it").exists()


def test_a_configuration_comes_back_from_json_and_differs_in_what_differs():
    config = TrainConfig(
        "toy",
        DeFlow(delta=0.01, hidden=(8, 8)),
        seeds=(3, 4),
        over={"tau": (0.1, 0.2)},
        run_dir=Path("a"),
        schedule="flow-first",
        share_flow=True,
    )
    again = TrainConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again.to_json() == config.to_json()
    assert config.differences(again) == []
    elsewhere = dataclasses.replace(config, run_dir=Path("b"), workers=7, keep_checkpoints=9)
    assert config.differences(elsewhere) == []
    other = dataclasses.replace(config, agent=DeFlow(delta=0.02, hidden=(8, 8)), steps=5)
    assert sorted(config.differences(other)) == ["agent.delta", "steps"]


def test_numbers_of_any_kind_become_those_that_json_knows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    config = TrainConfig(
        "toy",
        DeFlow(delta=np.float32(0.5)),
        seeds=np.arange(2),
        over={"tau": np.float32([0.5])},
        steps=1e5,
        eval_every=np.int64(7),
        run_dir="~/run",
    )
    document = config.to_json()
    assert json.loads(json.dumps(document)) == document
    assert (document["steps"], document["eval_every"], document["seeds"]) == (100_000, 7, [0, 1])
    assert (document["run_dir"], document["agent"]["delta"]) == ("/home/me/run", 0.5)
    assert {type(document[name]) for name in ("steps", "eval_every")} == {int}
    assert TrainConfig.from_json(document) == config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seeds", 3),
        ("seeds", ["0"]),
        ("seeds", [0.5]),
        ("over", None),
        ("over", {"delta": 0.1}),
        ("over", {"delta": ["a"]}),
        ("steps", "10"),
        ("steps", True),
        ("overwrite", 0),
        ("env_patience", "long"),
        ("run_dir", 1),
        ("schedule", None),
        ("agent", {"name": 3}),
        ("agent", "deflow"),
    ],
)
def test_an_entry_of_the_wrong_kind_is_named(name: str, value: Any, tmp_path: Path):
    document = {**TrainConfig("toy", DeFlow()).to_json(), name: value}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(document))
    with pytest.raises(DeFlowError, match=rf"config.json: The configuration.* {name}|agent's name"):
        RunFolder(tmp_path).config()


@pytest.mark.parametrize("document", [[], "deflow", None, {}])
def test_what_is_no_configuration_is_refused(document: Any):
    with pytest.raises(DeFlowError, match=r"lacks agent.*task"):
        TrainConfig.from_json(document)


def test_a_folder_of_another_configuration_is_refused_with_the_names(
    training: Training, joint: RunFolder
):
    before = {path: path.stat().st_mtime_ns for path in joint.path.rglob("*")}
    with pytest.raises(DeFlowError, match=r"another configuration .*steps.*agent\.delta"):
        training(
            {"delta": 0.5},
            schedule="joint",
            env=toy.ENV,
            eval_episodes=4,
            steps=80,
            run_dir=joint.path,
        )
    again = {"schedule": "joint", "env": toy.ENV, "eval_episodes": 4, "run_dir": joint.path}
    with pytest.raises(DeFlowError, match=r"this very run already.*deflow resume"):
        training(**again)
    with joint.locked(), pytest.raises(DeFlowError, match="Another process is training"):
        training(**again)
    assert {path: path.stat().st_mtime_ns for path in joint.path.rglob("*")} == before


def test_a_folder_of_other_things_is_refused(training: Training, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DeFlowError, match="not a run folder"):
        training(run_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_made_is_refused(training: Training, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DeFlowError, match="cannot be written"):
        training(run_dir=tmp_path / "file" / "it")


def created(path: Path, begun: RunFolder | None = None, **options: Any) -> RunFolder:
    """A folder whose run has not begun."""
    config = TrainConfig("toy", DeFlow(**toy.SMALL), **options)
    return RunFolder.create(path, config, {"name": "toy"}, ANYTHING, {}, begun)


def test_the_data_folder_is_kept_as_it_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert created(tmp_path / "run", data_dir=Path("sets")).config().data_dir == tmp_path / "sets"


def test_the_current_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(DeFlowError, match="current folder cannot become a run's"):
        created(Path())
    assert list(tmp_path.iterdir()) == [here]
    assert created(Path("../there")).config().task == "toy"


def test_a_copy_that_fails_leaves_nothing(
    joint: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(source: Path, target: Path) -> None:
        target.mkdir()
        raise shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")])

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(DeFlowError, match=r"cannot be written \(.*No space left on device"):
        created(tmp_path / "it", begun=joint)
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_begin_the_same_run_the_second_is_refused_and_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, described = tmp_path / "run", run_folder.provenance

    def other_comes_first(dataset: dict[str, Any]) -> dict[str, Any]:
        monkeypatch.undo()
        with monkeypatch.context() as another:
            another.setattr(os, "getpid", lambda: 1)
            created(path)
        return described(dataset)

    monkeypatch.setattr(run_folder, "provenance", other_comes_first)
    with pytest.raises(DeFlowError, match=r"cannot be written .* choose another --run-dir"):
        created(path)
    assert RunFolder.open(path).read_json("provenance.json")["dataset"] == {"name": "toy"}
    assert [found.name for found in tmp_path.iterdir()] == ["run"]


def test_a_run_that_goes_on_elsewhere_is_not_locked_with_the_one_it_began_from(
    joint: RunFolder, tmp_path: Path
):
    with joint.locked():
        folder = created(tmp_path / "it", begun=joint)
    assert not list(folder.path.rglob(".lock"))


def test_an_environment_of_another_width_is_refused(training: Training, tmp_path: Path):
    path = tmp_path / "it"
    with pytest.raises(DeFlowError, match=r"width 4 and actions of width 2, but .* has 2 and 2"):
        training(env="tests.toy:make_blind", run_dir=path)
    assert not path.exists()


@pytest.mark.parametrize("entry", ["tests.toy:absent", "tests.absent:make", "Absent-v0"])
def test_an_environment_that_is_not_there_is_refused(
    training: Training, tmp_path: Path, entry: str
):
    path = tmp_path / "it"
    with pytest.raises(DeFlowError, match=entry.rpartition(":")[0] or entry):
        training(env=entry, run_dir=path)
    assert not path.exists()


def test_a_flow_of_other_data_or_another_size_is_refused(
    training: Training, flow_first: RunFolder, tmp_path: Path
):
    path = tmp_path / "it"
    options = {"schedule": "flow-first", "run_dir": path}
    with pytest.raises(DeFlowError, match="trained on other data"):
        training(dataset=toy.dataset(seed=1), flow_from=str(flow_first.path), **options)
    assert not path.exists()
    with pytest.raises(DeFlowError, match="other sizes"):
        training({"hidden": (16, 8)}, flow_from=str(flow_first.path), **options)
    assert not path.exists()
    with pytest.raises(DeFlowError, match="not a run folder"):
        training(flow_from=str(tmp_path / "absent"), **options)
    assert not path.exists()
    with pytest.raises(DeFlowError, match="trained with path straight, and this run has circular"):
        training({"path": "circular"}, flow_from=str(flow_first.path), **options)
    assert not path.exists()


def test_a_flow_that_diverged_is_refused(
    training: Training, flow_first: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    read, options = checkpoint.read_meta, {"schedule": "flow-first", "run_dir": tmp_path / "it"}
    frozen = {"member": "seed0", "phase": "flow", "step": 3, "term": "flow/loss"}

    def meta(path: Path) -> dict[str, Any]:
        found = read(path)
        return {**found, "position": {**found["position"], "frozen": [frozen]}}

    monkeypatch.setattr(checkpoint, "read_meta", meta)
    with pytest.raises(DeFlowError, match="diverged in seed0"):
        training(flow_from=str(flow_first.path), **options)
    assert not (tmp_path / "it").exists()


def test_a_shared_behaviour_is_not_swept():
    config = TrainConfig("toy", IDQL(), over={"dropout": (0.0, 0.1)})
    config.validate()
    with pytest.raises(DeFlowError, match=r"dropout is the behaviour's alone.*or --share-flow"):
        dataclasses.replace(config, share_flow=True).validate()
    with pytest.raises(DeFlowError, match="or --flow-from"):
        dataclasses.replace(config, flow_from="somewhere").validate()


@pytest.mark.slow
def test_a_flow_that_has_learnt_online_is_refused_and_one_that_was_frozen_is_not(
    training: Training, flow_first: RunFolder, data: Dataset, tmp_path: Path
):
    options = {"schedule": "flow-first", "steps": 10}
    for prior in ("learns", "frozen"):
        where = {"run_dir": tmp_path / prior, "dataset": data, "settings": {"prior_online": prior}}
        finetune(flow_first.path, 2, **where)
    training(**options, flow_from=str(tmp_path / "frozen"), run_dir=tmp_path / "taker")
    with pytest.raises(DeFlowError, match="gone on learning online"):
        training(**options, flow_from=str(tmp_path / "learns"), run_dir=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_fraction_given_as_a_whole_number_may_be_swept():
    TrainConfig("toy", FQL(alpha=300), over={"alpha": (100.0, 300.0)}).validate()
