"""`deflow finetune`, and the words that send a run online, through the same door as the program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests import toy

from deflow import DeFlowError
from deflow.cli import main
from deflow.training.run_folder import RunFolder

Printed = Callable[..., Any]
QUICK = ("--steps", 6, "--eval-every", 3, "--eval-episodes", 1, "--checkpoint-every", 6)


def test_finetune_leaves_a_run_beside_the_old_one_and_report_draws_both(
    finished: Path, file: Path, tmp_path: Path, printed: Printed
):
    out = tmp_path / "frozen"
    words = ("finetune", finished, *QUICK, "--data", file, "--freeze-prior", "--out", out)
    document = printed(*words, "--set", "delta=0.01", "--json")
    assert document["run_dir"] == str(out)
    assert all("before" in member for member in document["members"])
    config = RunFolder.open(out).config()
    assert (config.online_steps, config.eval_every, config.log_every) == (6, 3, 10)
    agent: Any = config.agent
    assert (agent.prior_online, agent.delta) == ("frozen", 0.01)
    (record,) = printed("report", out, "--figure", tmp_path / "curve.png", "--json")
    assert record["online_steps"] == 6
    assert set(record["before"]) == {"points", "success", "return"}
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.size[0] > 500


@pytest.mark.slow
def test_what_happened_before_and_after_stands_in_the_table(
    finished: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["finetune", finished, *QUICK, "--data", file, "--out", tmp_path / "it"]
    assert main.run(list(map(str, words))) == 0
    table = capsys.readouterr().out
    assert "→" in table
    assert "Online: the evaluation before → the last one" in " ".join(table.split())


@pytest.mark.slow
def test_a_run_may_go_online_in_one_go(training: Callable[..., int], tmp_path: Path):
    assert training(tmp_path / "it", "--online-steps", 5) == 0
    records = RunFolder(tmp_path / "it").read_lines(tmp_path / "it" / "evaluations.jsonl")
    assert [r["phase"] for r in records] == ["joint", "joint", "online"]


@pytest.mark.slow
def test_sac_needs_no_data(tmp_path: Path):
    where = ("--run-dir", tmp_path / "it", "--eval-episodes", 1)
    sizes = ("--agent.hidden", 8, "--agent.batch-size", 4, "--agent.random-steps", 2)
    words = ["train", toy.ENV, "--agent", "sac", "--online-steps", 5, *where, *sizes]
    assert main.run(list(map(str, words))) == 0
    records = RunFolder(tmp_path / "it").read_lines(tmp_path / "it" / "evaluations.jsonl")
    assert [r["step"] for r in records] == [0, 5]


def test_the_prior_is_said_once(finished: Path, file: Path, tmp_path: Path):
    out = tmp_path / "out"
    words = ["finetune", finished, *QUICK, "--data", file, "--freeze-prior", "--out", out]
    with pytest.raises(DeFlowError, match="--freeze-prior says what --set prior_online is"):
        main.run([*map(str, words), "--set", "prior_online=coasting"])
    assert not out.exists()


def test_a_prior_is_frozen_only_where_there_is_one(file: Path, tmp_path: Path):
    path, out = tmp_path / "iql", tmp_path / "out"
    sizes = ("--agent.hidden", 8, "--agent.batch-size", 4, "--steps", 2, "--eval-episodes", 0)
    words = ["train", "toy", "--agent", "iql", "--data", file, "--env", toy.ENV, *sizes]
    assert main.run([*map(str, words), "--run-dir", str(path)]) == 0
    again = ["finetune", path, "--steps", 2, "--data", file, "--freeze-prior", "--out", out]
    with pytest.raises(DeFlowError, match="--freeze-prior is for DeFlow; iql has no such prior"):
        main.run(list(map(str, again)))
    assert not out.exists()
