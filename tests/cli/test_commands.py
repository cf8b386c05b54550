"""Each command on a real run, through the same door as the program."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests import toy

from deflow import DeFlow, DeFlowError, train
from deflow.cli import main
from deflow.cli.train import Train
from deflow.data.transforms import Transforms
from deflow.training.policy import load_family
from deflow.training.recorder import Recorder
from deflow.training.run_folder import RunFolder

Printed = Callable[..., Any]
Training = Callable[..., int]


def parameters(path: Path) -> list[bytes]:
    import jax

    _, _, states, _, _ = load_family(RunFolder.open(path))
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(states)]


def test_train_leaves_a_run_and_prints_its_scores(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert training(tmp_path / "it", "--seeds", 0, 1, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["run_dir"] == str(tmp_path / "it")
    assert [member["member"] for member in document["members"]] == ["seed0", "seed1"]
    assert all(0 <= member["success"] <= 1 for member in document["members"])
    assert (tmp_path / "it" / "summary.json").is_file()


def test_the_function_and_the_command_train_the_same(finished: Path, tmp_path: Path):
    folder = train(
        "toy",
        DeFlow(**toy.SMALL),
        dataset=toy.dataset(),
        seeds=(0, 1),
        steps=20,
        chunk=10,
        log_every=10,
        checkpoint_every=10,
        eval_every=10,
        eval_episodes=3,
        env=toy.ENV,
        run_dir=tmp_path / "it",
    )
    assert folder.config().differences(RunFolder.open(finished).config()) == []
    assert parameters(folder.path) == parameters(finished)


def test_resume_goes_on_with_a_stopped_run(
    training: Training,
    finished: Path,
    file: Path,
    tmp_path: Path,
    printed: Printed,
    monkeypatch: pytest.MonkeyPatch,
):
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "evaluate", stop)
        with pytest.raises(KeyboardInterrupt):
            training(tmp_path / "it", "--seeds", 0, 1)
    document = printed("resume", tmp_path / "it", "--data", file, "--json")
    assert [member["member"] for member in document["members"]] == ["seed0", "seed1"]
    assert parameters(tmp_path / "it") == parameters(finished)
    again = printed("resume", tmp_path / "it", "--data", file, "--json")
    assert again == document


def test_evaluate_says_how_every_episode_went(finished: Path, printed: Printed):
    words = ("evaluate", finished, "--episodes", 3, "--json", "--workers")
    document = printed(*words, 2)
    assert [member["member"] for member in document["members"]] == ["seed0", "seed1"]
    for member in document["members"]:
        assert [episode["episode"] for episode in member["episodes"]] == [0, 1, 2]
    assert document["position"]["step"] == 20
    returns = [member["return"] for member in document["members"]]
    assert document["return"]["mean"] == pytest.approx(sum(returns) / 2)
    assert document["return"]["members"] == 2
    other = printed(*words, 1)
    assert other["members"] == document["members"]
    logged = [line for line in RunFolder(finished).read_lines(finished / "evaluations.jsonl")][-2:]
    assert [line["episodes"] for line in logged] == [m["episodes"] for m in document["members"]]
    prior = printed(*words, 2, "--policy", "prior", "--seed", 1)
    assert (prior["policy"], prior["evaluation_seed"]) == ("prior", 1)
    assert prior["members"] != document["members"]


def test_evaluate_prints_a_table(finished: Path, capsys: pytest.CaptureFixture[str]):
    assert main.run(["evaluate", str(finished), "--episodes", "2", "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "seed0" in out
    assert "success" in out
    assert "mean ± deviation" in out


@pytest.mark.slow
def test_report_puts_runs_side_by_side(
    finished: Path, training: Training, tmp_path: Path, printed: Printed
):
    assert training(tmp_path / "other", "--seeds", 0, 1, "--schedule", "flow-first") == 0
    document = printed("report", finished, tmp_path / "other", "--json")
    assert [record["schedule"] for record in document] == ["joint", "flow-first"]
    assert [len(record["members"]) for record in document] == [2, 2]
    for record in document:
        values = [member["success"] for member in record["members"]]
        assert record["success"]["mean"] == pytest.approx(np.mean(values))
        assert record["success"]["members"] == len(values)
        assert record["finished"] is True
        assert record["task"] == "toy"


@pytest.mark.parametrize("x", ["step", "train_seconds"])
def test_report_draws_the_curves(
    finished: Path, tmp_path: Path, x: str, capsys: pytest.CaptureFixture[str]
):
    figure = tmp_path / "figures" / "curves.png"
    assert main.run(["report", str(finished), "--figure", str(figure), "--x", x]) == 0
    assert "toy" in capsys.readouterr().out
    with Image.open(figure) as picture:
        picture.verify()
        assert picture.format == "PNG"
        assert picture.width >= 800
        assert picture.height >= 500
    assert figure.stat().st_size > 10_000


def test_of_several_paths_those_without_a_run_are_left_out(
    finished: Path, tmp_path: Path, printed: Printed, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "compare-toy").mkdir()
    words = ["report", str(tmp_path / "compare-toy"), str(finished), "--json"]
    assert main.run(words) == 0
    heard = capsys.readouterr()
    assert [record["run_dir"] for record in json.loads(heard.out)] == [str(finished)]
    assert f"Left out, since no run is there: {tmp_path / 'compare-toy'}" in heard.err.replace(
        "\n", ""
    )


def test_a_member_that_diverged_is_told_wherever_its_run_is_shown(
    training: Training,
    file: Path,
    tmp_path: Path,
    printed: Printed,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("COLUMNS", "200")
    words = ("--seeds", 0, "--over", "learning_rate=0.0003,1e30", "--json")
    assert training(tmp_path / "it", *words) == 0
    trained = json.loads(capsys.readouterr().out)
    (entry,) = trained["frozen"]
    assert (entry["member"], entry["phase"]) == ("seed0-learning_rate1e+30", "joint")
    assert printed("resume", tmp_path / "it", "--data", file, "--json") == trained
    assert printed("report", tmp_path / "it", "--json")[0]["frozen"] == [entry]
    (tmp_path / "it" / "summary.json").unlink()
    assert printed("report", tmp_path / "it", "--json")[0]["frozen"] == [entry]
    assert main.run(["report", str(tmp_path / "it")]) == 0
    table = capsys.readouterr().out
    assert "2, 1 frozen" in table
    assert "it: seed0-learning_rate1e+30 is frozen at joint step" in table


def test_a_saved_configuration_repeats_the_run(finished: Path, file: Path, tmp_path: Path):
    words = ["train", "--config", finished / "config.json", "--data", file, "--run-dir"]
    assert main.run([str(word) for word in [*words, tmp_path / "same"]]) == 0
    assert parameters(tmp_path / "same") == parameters(finished)
    other = [*words, tmp_path / "other", "--agent.delta", "0.5", "--seeds", 3, 4]
    assert main.run([str(word) for word in other]) == 0
    config = RunFolder.open(tmp_path / "other").config()
    assert config.differences(RunFolder.open(finished).config()) == ["seeds", "agent.delta"]


def test_a_saved_configuration_reads_data_as_its_run_did(
    finished: Path, file: Path, tmp_path: Path
):
    shutil.copy(finished / "config.json", tmp_path)
    scaled = Transforms(reward_scale=0.5)
    conversion = {"columns": {"actions": ["moves"]}, "transforms": scaled.to_json(), "env": None}
    (tmp_path / "conversion.json").write_text(json.dumps(conversion))
    log = toy.arrays()
    np.savez(tmp_path / "log.npz", moves=log.pop("actions"), **log)
    words = ["--config", str(tmp_path / "config.json"), "--data", str(tmp_path / "log.npz")]
    assert Train.parse(words).own().transforms == scaled
    own = Train.parse([*words, "--columns", "actions=moves", "--scale-rewards", "3"]).own()
    assert own.transforms.reward_scale == 3


def test_over_sweeps_a_setting_with_every_seed(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ("--over", "delta=0.001,0.5", "tau=0.1", "--eval-episodes", 1, "--json")
    assert training(tmp_path / "it", "--seeds", 2, *words) == 0
    document = json.loads(capsys.readouterr().out)
    assert [member["member"] for member in document["members"]] == [
        "seed2-delta0.001-tau0.1",
        "seed2-delta0.5-tau0.1",
    ]
    assert RunFolder.open(tmp_path / "it").config().over == {"delta": (0.001, 0.5), "tau": (0.1,)}


def test_a_run_without_an_environment_is_reported_and_played_all_the_same(
    file: Path, tmp_path: Path, printed: Printed, capsys: pytest.CaptureFixture[str]
):
    words = ["train", "toy", "--data", file, "--run-dir", tmp_path / "it", "--steps", 10]
    tiny = "--chunk 10 --agent.hidden 16 16 --agent.batch-size 16 --agent.integration-steps 4"
    trained = printed(*words, *tiny.split(), "--seeds", 0, 1, "--json")
    assert trained["run_dir"] == str(tmp_path / "it")
    (record,) = printed("report", tmp_path / "it", "--json")
    assert record["success"] is None
    assert main.run(["report", str(tmp_path / "it")]) == 0
    capsys.readouterr()
    with pytest.raises(DeFlowError, match="no curve to draw"):
        main.run(["report", str(tmp_path / "it"), "--json", "--figure", str(tmp_path / "it.png")])
    assert capsys.readouterr().out == ""
    played = printed("evaluate", tmp_path / "it", "--env", toy.ENV, "--episodes", 1, "--json")
    assert [len(member["episodes"]) for member in played["members"]] == [1, 1]
