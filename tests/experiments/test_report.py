"""Reports are read from run folders alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from deflow import DeFlow, DeFlowError
from deflow.agents.sac import SAC
from deflow.experiments import report
from deflow.experiments.report import (
    draw_report,
    judged_by,
    overview,
    print_report,
    steps_text,
    together,
)
from deflow.training import curve
from deflow.training.config import TrainConfig
from deflow.training.curve import draw_curve
from deflow.training.family import members_of
from deflow.training.run_folder import RunFolder
from deflow.training.summary import summarize


def written(path: Path, scores: dict[int, list[float | None]], **options: Any) -> RunFolder:
    """A run folder with evaluations every hundred steps: success by seed, return ten times it."""
    config = TrainConfig("toy", DeFlow(), seeds=tuple(scores), steps=1000, **options)
    path.mkdir()
    folder = RunFolder(path)
    folder.write_json("config.json", config.to_json())
    folder.write_json("provenance.json", {"dataset": {"fingerprint": "a"}})
    lines = [
        {
            "phase": "joint",
            "step": 100 * (i + 1),
            "total_step": 100 * (i + 1),
            "train_seconds": float(i + 1),
            "member": member.label,
            "seed": seed,
            "success": value,
            "return": 10 * (value or 0.0),
            "length": 5.0,
        }
        for seed, values in scores.items()
        for member in members_of([seed], config.over)
        for i, value in enumerate(values)
    ]
    folder.append(folder.evaluations, lines)
    return folder


def test_a_score_is_the_mean_of_the_last_three_and_its_deviation_is_over_members(tmp_path: Path):
    folder = written(tmp_path / "a", {0: [1, 0.1, 0.2, 0.3], 1: [0, 0.5, 0.6, 0.7]})
    members = summarize(folder)
    assert [m["success"] for m in members] == pytest.approx([0.2, 0.6])
    assert members[0]["mean_of_steps"] == [200, 300, 400]
    record = overview(folder)
    assert record["success"] == {
        "mean": pytest.approx(0.4),
        "std": pytest.approx(0.2),
        "members": 2,
    }
    assert record["return"]["mean"] == pytest.approx(4.0)
    assert record["train_seconds"] == 4
    assert record["finished"] is False
    json.dumps(record)


def test_success_that_is_told_only_where_there_was_one_is_no_more_than_that(tmp_path: Path):
    folder = written(tmp_path / "a", {0: [None, None, 0.6], 1: [None, None, None]})
    assert [m["success"] for m in summarize(folder)] == pytest.approx([0.2, 0.0])
    other = written(tmp_path / "b", {2: [None, None, None]})
    own = [overview(run) for run in (folder, other)]
    assert own[1]["success"] is None
    (joined,) = together([folder, other], own)
    assert joined["success"] == {
        "mean": pytest.approx(0.2 / 3),
        "std": pytest.approx(np.std([0.2, 0, 0])),
        "members": 3,
    }


def test_fewer_evaluations_than_three_count_as_they_are(tmp_path: Path):
    assert summarize(written(tmp_path / "a", {0: [0.5]}))[0]["success"] == 0.5
    assert summarize(written(tmp_path / "b", {0: []})) == []
    assert overview(RunFolder(tmp_path / "b"))["success"] is None


def test_a_run_that_was_not_evaluated_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "120")
    folder = written(tmp_path / "a", {0: [], 1: []})
    position = {"phase": 0, "step": 1000, "train_seconds": 12.0, "frozen": []}
    folder.write_json("summary.json", {"position": position, "members": []})
    record = overview(folder)
    assert (record["count"], record["train_seconds"]) == (2, 12.0)
    print_report([folder])
    out = capsys.readouterr().out
    assert "12 s" in out
    assert "was not evaluated" in out


def test_without_success_the_return_stands_alone(tmp_path: Path):
    record = overview(written(tmp_path / "a", {0: [None, None]}))
    assert record["success"] is None
    assert record["return"]["members"] == 1


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path):
    folder = written(tmp_path / "a", {0: [0.1, 0.2]})
    with folder.evaluations.open("a") as file:
        file.write('{"step": 300, "succ')
    assert summarize(folder)[0]["mean_of_steps"] == [100, 200]


def test_the_table_names_every_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "160")
    folders = [
        written(tmp_path / "first", {0: [0.25], 1: [0.75]}),
        written(tmp_path / "second", {0: []}, schedule="flow-first"),
    ]
    print_report(folders)
    out = capsys.readouterr().out
    for word in ("first", "second", "50.0", "25.0", "joint", "flow-first"):
        assert word in out


def test_seeds_spread_over_folders_are_put_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "160")
    one = written(tmp_path / "one", {0: [0.1], 1: [0.3]})
    two = written(tmp_path / "two", {2: [0.8]})
    other = written(tmp_path / "other", {3: [0.8]}, eval_seed=1)
    folders = [one, other, two]
    (record,) = together(folders, [overview(folder) for folder in folders])
    assert record["success"] == {
        "mean": pytest.approx(0.4),
        "std": pytest.approx(np.std([0.1, 0.3, 0.8])),
        "members": 3,
    }
    assert record["run_dirs"] == [str(one.path), str(two.path)]
    assert (record["run_dir"], record["count"], record["train_seconds"]) == (None, 3, 2.0)
    print_report([one, two])
    out = capsys.readouterr().out
    assert "one + two" in out
    assert "40.0 ± 29.4" in out


def test_only_what_is_the_same_but_for_seeds_is_put_together(tmp_path: Path):
    one = written(tmp_path / "one", {0: [0.1, 0.2], 1: [0.3, 0.2]})
    again = written(tmp_path / "again", {1: [0.3, 0.2], 2: [0.5, 0.5]})
    behind = written(tmp_path / "behind", {2: [0.5]})
    unseen = written(tmp_path / "unseen", {2: []})
    foreign = written(tmp_path / "foreign", {2: [0.5, 0.5]})
    foreign.write_json("provenance.json", {"dataset": {"fingerprint": "b"}})
    for other in (again, behind, unseen, foreign):
        assert together([one, other], [overview(one), overview(other)]) == []


@pytest.mark.parametrize("whole", [True, False])
def test_a_swept_setting_has_a_line_for_each_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
):
    over = {"delta": (0.1, 0.2)}
    folder = written(tmp_path / "a", {0: [0.5], 1: [0.7]}, over=over)
    lines = folder.read_lines(folder.evaluations)
    folder.evaluations.unlink()
    worse = [{**r, "success": r["success"] / 2 ** r["member"].endswith("0.2")} for r in lines]
    folder.append(folder.evaluations, worse)
    drawn: list[Figure] = []
    for module in (report, curve):
        monkeypatch.setattr(module, "save_figure", lambda figure, path: drawn.append(figure))
    if whole:
        draw_report([folder], tmp_path / "a.png")
    else:
        draw_curve(folder)
    (axes,) = drawn[0].axes
    means, labels = axes.get_legend_handles_labels()
    name = "a, " if whole else ""
    assert labels == [f"{name}delta 0.1", f"{name}delta 0.2"]
    assert [float(line.get_ydata()[0]) for line in means] == pytest.approx([60, 30])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def test_the_figure_shows_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one = written(tmp_path / "one", {0: [0.1, 0.5, 0.9], 1: [0.2, 0.4, 0.8]})
    two = written(tmp_path / "two", {0: [0.9, 0.5, 0.1]})
    draw_report([one], tmp_path / "one.png")
    draw_report([one, two], tmp_path / "sub" / "both.png", "train_seconds")
    alone, both = pixels(tmp_path / "one.png"), pixels(tmp_path / "sub" / "both.png")
    assert alone.shape == both.shape
    assert min(both.shape[:2]) > 400
    drawn: list[Figure] = []
    monkeypatch.setattr(report, "save_figure", lambda figure, path: drawn.append(figure))
    draw_report([one, two], tmp_path / "any.png")
    (axes,) = drawn[0].axes
    lines, labels = axes.get_legend_handles_labels()
    assert labels == ["one", "two"]
    np.testing.assert_allclose(lines[0].get_ydata(), [15, 45, 85])
    np.testing.assert_allclose(lines[1].get_ydata(), [90, 50, 10])


def test_runs_that_were_never_evaluated_have_no_figure(tmp_path: Path):
    with pytest.raises(DeFlowError, match="evaluated"):
        draw_report([written(tmp_path / "a", {0: []})], tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scores", [[None, None], [0.5]])
def test_odd_runs_can_be_drawn_too(tmp_path: Path, scores: list[float | None]):
    draw_report([written(tmp_path / "a", {0: scores})], tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").size


def test_runs_with_and_without_success_are_drawn_by_their_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folders = [written(tmp_path / "a", {0: [0.5, 0.6]}), written(tmp_path / "b", {0: [None, None]})]
    drawn: list[Figure] = []
    monkeypatch.setattr(report, "save_figure", lambda figure, path: drawn.append(figure))
    draw_report(folders, tmp_path / "a.png")
    (axes,) = drawn[0].axes
    assert axes.get_ylabel() == "return"
    assert [list(line.get_ydata()) for line in axes.lines] == [[5.0, 6.0], [0.0, 0.0]]


def test_on_d4rl_the_last_evaluation_alone_counts(tmp_path: Path):
    folder = written(tmp_path / "a", {0: [0.1, 0.2, 0.3, 0.4]})
    lines = folder.read_lines(folder.evaluations)
    folder.evaluations.unlink()
    folder.append(folder.evaluations, [{**line, "points": 100 * line["success"]} for line in lines])
    (member,) = summarize(folder)
    assert (member["points"], member["mean_of_steps"]) == (pytest.approx(40), [400])
    assert judged_by([overview(folder)]) == "last evaluation"


def test_an_agent_that_learns_online_alone_has_no_steps_on_data(tmp_path: Path):
    folder = written(tmp_path / "a", {0: [0.1]}, online_steps=20_000)
    assert steps_text(overview(folder)) == "1,000 + 20,000 online"
    config = TrainConfig("toy", SAC(), steps=1000, online_steps=20_000)
    folder.write_json("config.json", config.to_json())
    record = overview(folder)
    assert record["steps"] == 0
    assert steps_text(record) == "20,000 online"


def test_who_diverged_is_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "160")
    folder = written(tmp_path / "a", {0: [0.1], 1: [0.2]})
    assert overview(folder)["frozen"] == []
    entry = {"member": "seed1", "phase": "joint", "step": 3, "term": "flow/loss"}
    folder.write_json("summary.json", {"position": {"frozen": [entry]}, "members": []})
    assert overview(folder)["frozen"] == [entry]
    print_report([folder])
    out = capsys.readouterr().out
    assert "2, 1 frozen" in out
    assert "a: seed1 is frozen at joint step 3" in out
