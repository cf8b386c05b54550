"""One agent over the values of its settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from tests import toy

from deflow.cli import main
from deflow.core.errors import DeFlowError
from deflow.experiments import sweep as module
from deflow.experiments.sweep import draw_sweep
from deflow.training.run_folder import RunFolder
from deflow.training.trainer import Trainer

TINY = (
    f"--env {toy.ENV} --steps 10 --chunk 10 --log-every 10 --checkpoint-every 10 --eval-every 10 "
    "--eval-episodes 2 --workers 1 --hidden 16 16 --set batch_size=16 --agent rebrac"
).split()


@pytest.fixture(scope="module")
def sweeping(file: Path) -> Callable[..., None]:
    """`deflow sweep toy --agent rebrac` at its smallest, with further words."""

    def call(out: Path, *words: object) -> None:
        line = ["sweep", "toy", "--data", file, "--out", out, *TINY, *words]
        assert main.run([str(word) for word in line]) == 0

    return call


def test_a_sweep_is_one_family_summed_up_over_seeds(
    sweeping: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    over = ("--over", "learning_rate=0.0001,0.01", "--over", "tau=0.1,0.5,1", "--seeds", 0, 3)
    sweeping(tmp_path / "out", *over, "--json")
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert document["over"] == {"learning_rate": [0.0001, 0.01], "tau": [0.1, 0.5, 1.0]}
    assert [list(p["settings"].values()) for p in document["points"]] == [
        [rate, tau] for rate in (0.0001, 0.01) for tau in (0.1, 0.5, 1.0)
    ]
    lines = RunFolder(tmp_path / "out" / "rebrac").read_lines(
        tmp_path / "out" / "rebrac" / "evaluations.jsonl"
    )
    for point in document["points"]:
        rate, tau = point["settings"].values()
        labels = [f"seed{seed}-learning_rate{rate:g}-tau{tau:g}" for seed in (0, 3)]
        returns = [line["return"] for line in lines if line["member"] in labels]
        assert [member["member"] for member in point["members"]] == labels
        assert point["return"]["mean"] == pytest.approx(np.mean(returns))
        assert point["return"]["std"] == pytest.approx(np.std(returns))
    with Image.open(tmp_path / "out" / "sweep.png") as picture:
        assert min(picture.size) > 400

    monkeypatch.setattr(Trainer, "run", lambda *_, **__: pytest.fail("trained again"))
    sweeping(tmp_path / "out", *over)
    table = capsys.readouterr().out
    assert all(word in table for word in ("learning_rate", "0.0001", "0.5", "* "))
    sweeping(tmp_path / "out", *over[2:4], *over[:2], *over[4:], "--json")
    again = json.loads(capsys.readouterr().out)  # The same settings, named in another order.
    assert again["points"] == document["points"]
    with pytest.raises(DeFlowError, match="differs in over"):
        sweeping(tmp_path / "out", "--over", "tau=0.1,0.5,1", "--seeds", 0, 3)


def document(values: list[float], **others: list[float]) -> dict[str, Any]:
    grid = [{"delta": value} for value in values]
    for name, more in others.items():
        grid = [{**settings, name: value} for settings in grid for value in more]
    score = {"mean": 0.5, "std": 0.1, "members": 2}
    members = [{"success": 0.4}, {"success": 0.6}]
    return {
        "agent": "deflow",
        "task": "toy",
        "steps": 10,
        "score": "success",
        "over": {"delta": values, **others},
        "points": [{"settings": s, "success": score, "members": members} for s in grid],
    }


@pytest.mark.parametrize(
    ("values", "scale"),
    [([0.001, 0.01], "log"), ([0.1, 0.5], "linear"), ([0.0, 1.0, 20.0], "linear")],
)
def test_the_axis_is_logarithmic_where_values_span_a_decade(
    monkeypatch: pytest.MonkeyPatch, values: list[float], scale: str
):
    drawn: list[Figure] = []
    monkeypatch.setattr(module, "save_figure", lambda figure, path: drawn.append(figure))
    draw_sweep(document(values[::-1], tau=[0.1, 0.2]), Path("any.png"))
    (axes,) = drawn[0].axes
    assert axes.get_xscale() == scale
    assert axes.get_xlabel() == "delta"
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["tau 0.1", "tau 0.2"]
    curve = axes.containers[0].lines[0]
    assert list(curve.get_xdata()) == values
    assert list(curve.get_ydata()) == [50.0] * len(values)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--over", "tau=a,b"], "--over tau takes numbers"),
        (["--over", "tau"], "name=value,value"),
        (["--over", "hidden=1,2"], "cannot vary inside a family"),
        (["--over", "tau=0.1,7"], "tau must be"),
        (["--over", "tau=0.1", "--set", "fql.tau=1"], "--set speaks of 'fql'"),
        (["--over", "tau=0.1", "--set", "tau=1"], "gives tau one value and --over several"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    sweeping: Callable[..., None], tmp_path: Path, words: list[str], said: str
):
    with pytest.raises(DeFlowError, match=said):
        sweeping(tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_value_whose_run_diverged_is_marked(
    sweeping: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    sweeping(tmp_path / "out", "--over", "learning_rate=0.001,1e30")
    table = capsys.readouterr().out
    assert "1, 1 frozen" in table
    assert "rebrac: seed0-learning_rate1e+30 is frozen" in table
    document = json.loads((tmp_path / "out" / "sweep.json").read_text())
    good, bad = document["points"]
    assert good["frozen"] == []
    assert [entry["member"] for entry in bad["frozen"]] == ["seed0-learning_rate1e+30"]
    assert document["frozen"] == bad["frozen"]
