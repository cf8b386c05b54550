"""Several agents side by side, from the command to the table; and going on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests import toy

from deflow.agents.fawac import FAWAC
from deflow.agents.floq import Floq
from deflow.agents.fql import FQL
from deflow.agents.sac import SAC
from deflow.cli import main
from deflow.core.errors import DeFlowError
from deflow.core.types import Spec
from deflow.experiments import lineup
from deflow.experiments.lineup import mark_best
from deflow.training.config import TrainConfig
from deflow.training.recorder import Recorder
from deflow.training.run_folder import RunFolder
from deflow.training.trainer import Trainer

OPTIONS: dict[str, Any] = {
    "--env": toy.ENV,
    "--steps": 20,
    "--chunk": 10,
    "--log-every": 10,
    "--checkpoint-every": 10,
    "--eval-every": 10,
    "--eval-episodes": 2,
    "--workers": 1,
    "--budget-steps": "fql=10",
    "--seeds": "0 1",
    "--hidden": "16 16",
    "--set": "bc.batch_size=16 fql.batch_size=16",
}
TINY = [word for name, value in OPTIONS.items() for word in (name, *str(value).split())]
Compare = Callable[..., Any]


def files(path: Path) -> dict[str, bytes]:
    """All that lies in a folder."""
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def comparing(file: Path) -> Callable[..., None]:
    """`deflow compare toy --agents bc fql` at its smallest, with further words."""

    def call(out: Path, *words: object, agents: tuple[str, ...] = ("bc", "fql")) -> None:
        line = ["compare", "toy", "--data", file, "--out", out, "--agents", *agents, *TINY, *words]
        assert main.run([str(word) for word in line]) == 0

    return call


@pytest.fixture(scope="module")
def compared(comparing: Compare, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison."""
    out = tmp_path_factory.mktemp("compare") / "out"
    comparing(out)
    return out


def test_it_leaves_runs_a_picture_and_a_document(compared: Path):
    document = json.loads((compared / "compare.json").read_text())
    assert document["task"] == "toy"
    assert [record["name"] for record in document["agents"]] == ["bc", "fql"]
    assert [record["steps"] for record in document["agents"]] == [20, 10]
    for record in document["agents"]:
        assert [member["seed"] for member in record["members"]] == [0, 1]
        scores = [member["success"] for member in record["members"]]
        assert record["success"]["mean"] == pytest.approx(np.mean(scores))
        assert record["success"]["std"] == pytest.approx(np.std(scores))
        assert record["settings"]["hidden"] == [16, 16]
        assert record["train_seconds"] > 0
        assert record["finished"] is True
        assert RunFolder.open(compared / record["name"]).config().steps == record["steps"]
    # BC: one network of 4 -> 16 -> 16 -> 2 forward, its weights' gradients, two inputs' gradients.
    forward = 4 * 16 + 16 * 16 + 16 * 2
    expected = 2 * 16 * (3 * forward - 4 * 16) / 1e9
    assert document["agents"][0]["gflop_per_step"] == pytest.approx(expected)
    assert any(record["best"] for record in document["agents"])
    with Image.open(compared / "compare.png") as picture:
        picture.verify()
        assert min(picture.size) > 400
    assert not list(compared.rglob("*.partial*"))


def test_what_is_finished_is_neither_trained_nor_touched_again(
    compared: Path, comparing: Compare, capsys: pytest.CaptureFixture[str], monkeypatch: Any
):
    before = files(compared)
    document = json.loads(before["compare.json"])

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(Trainer, "run", never)
    monkeypatch.setenv("COLUMNS", "100")
    capsys.readouterr()
    comparing(compared, "--json")
    assert json.loads(capsys.readouterr().out) == document
    assert files(compared / "bc") == {
        name.removeprefix("bc/"): content
        for name, content in before.items()
        if name.startswith("bc/")
    }
    comparing(compared)
    table = capsys.readouterr().out
    for word in ("bc", "fql", "* ", "GFLOP/step", "training"):
        assert word in table


def test_a_comparison_that_was_stopped_goes_on(
    compared: Path, comparing: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Once between two agents, and once in the middle of one."""
    out, train, trained = tmp_path / "out", lineup.train, []

    def until(name: str) -> Callable[..., RunFolder]:
        def call(config: Any, dataset: Any) -> RunFolder:
            if config.agent.name == name:
                raise KeyboardInterrupt
            trained.append(config.agent.name)
            return train(config, dataset)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(lineup, "train", until("fql"))
        with pytest.raises(KeyboardInterrupt):
            comparing(out)
    first = files(out / "bc")
    assert trained == ["bc"]
    assert not (out / "compare.json").exists()

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lineup, "train", until("bc"))
        patch.setattr(Recorder, "evaluate", stop)
        with pytest.raises(KeyboardInterrupt):
            comparing(out)
    assert trained == ["bc", "fql"]

    with monkeypatch.context() as patch:
        patch.setattr(lineup, "train", until("fql"))
        comparing(out)
    assert trained == ["bc", "fql"]
    assert files(out / "bc") == first

    def scores(path: Path) -> list[Any]:
        document = json.loads((path / "compare.json").read_text())
        return [(r["name"], r["success"], r["return"]) for r in document["agents"]]

    assert scores(out) == scores(compared)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--steps", 30], "steps"),
        (["--set", "bc.learning_rate=0.1"], r"agent\.learning_rate"),
        (["--seeds", 0, 2], "seeds"),
    ],
)
def test_a_changed_configuration_is_refused(
    compared: Path, comparing: Compare, words: list[Any], named: str
):
    before = files(compared)
    with pytest.raises(DeFlowError, match=rf"differs in {named}.*--out"):
        comparing(compared, *words)
    assert files(compared) == before


@pytest.mark.parametrize(
    ("agents", "words"),
    [
        (("bc", "fql", "own=bc"), ["--set", "own.batch_size=16"]),
        (("bc", "fql"), []),  # Also where nothing is left to train.
    ],
)
def test_other_data_are_refused(
    compared: Path, comparing: Compare, tmp_path: Path, agents: tuple[str, ...], words: list[str]
):
    other = toy.save(tmp_path / "other.npz", seed=5)
    before = files(compared)
    with pytest.raises(DeFlowError, match="different data"):
        comparing(compared, "--data", other, *words, agents=agents)
    assert files(compared) == before


@pytest.mark.parametrize(
    ("agents", "words", "said"),
    [
        (("bc", "fql", "flq"), [], "no agent 'flq'.*fql"),
        (("bc", "bc"), [], "each agent once"),
        (("bc", "a/b=fql"), [], "letters"),
        (("bc", "fql"), ["--set", "iql.tau=0.1"], "--set speaks of 'iql'.*bc"),
        (("bc", "fql"), ["--set", "fql.tua=0.1"], "no setting 'tua'.*tau"),
        (("bc", "fql"), ["--set", "bc.learning_rate=many"], "bc.learning_rate.*'many'"),
        (("bc", "fql"), ["--set", "fql.normalize_q=perhaps"], "true or false"),
        (("bc", "fql"), ["--set", "fql.tau=7"], "tau must be"),
        (("bc", "fql"), ["--set", "fql.tau"], "agent.setting=value"),
        (("bc", "fql"), ["--budget-steps", "x=5"], "--budget-steps speaks of 'x'"),
        (("bc", "fql"), ["--budget-steps", "bc=soon"], "whole number"),
        (("bc", "fql"), ["--schedule", "fql=flow-first"], "joint"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    comparing: Compare, tmp_path: Path, agents: tuple[str, ...], words: list[Any], said: str
):
    with pytest.raises(DeFlowError, match=said):
        comparing(tmp_path / "out", *words, agents=agents)
    assert not (tmp_path / "out").exists()


def records(score: str, *means: float | None) -> list[dict[str, Any]]:
    other = {"success": "return", "return": "success"}[score]
    return [{score: None if m is None else {"mean": m}, other: None} for m in means]


@pytest.mark.parametrize(
    ("score", "means", "near"),
    [
        ("success", [1.0, 0.951, 0.949, 0.0], [True, True, False, False]),
        ("return", [-100.0, -104.9, -105.1], [True, True, False]),
        ("return", [-100.0, None], [True, False]),
        ("return", [None, None], [False, False]),
    ],
)
def test_within_95_percent_of_the_best_is_marked(score: str, means: list[Any], near: list[bool]):
    found = records(score, *means)
    assert mark_best(found) == score
    assert [r["near_best"] for r in found] == near
    assert [r["best"] for r in found] == [m is not None and m == means[0] for m in means]


def test_every_agent_is_asked_whether_it_sees_before_any_is_trained(tmp_path: Path):
    from tests import seen

    configs = {
        agent.name: TrainConfig("seen", agent, run_dir=tmp_path / agent.name, steps=5)
        for agent in (FQL(hidden=(8,)), FAWAC(hidden=(8,)), Floq(hidden=(8,)))
    }
    with pytest.raises(DeFlowError, match="learned from frames, which fawac cannot"):
        lineup.train_all(configs, seen.dataset())
    assert not list(tmp_path.iterdir())


def test_an_agent_without_data_stands_beside_those_that_have_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """SAC's run was trained on nothing, which is not another set of data."""
    spec, description = Spec(4, 2, (-1.0, 0.0), 5), {"fingerprint": ""}
    done = TrainConfig(toy.ENV, SAC(hidden=(8,)), run_dir=tmp_path / "sac", online_steps=20_000)
    RunFolder.create(tmp_path / "sac", done, description, spec, {})
    left = TrainConfig(toy.ENV, FQL(hidden=(8,)), run_dir=tmp_path / "fql", online_steps=20_000)
    trained: list[str] = []
    monkeypatch.setattr(lineup, "train", lambda config, data: trained.append(config.agent.name))
    monkeypatch.setattr(lineup, "resume", lambda *_: trained.append("sac"))
    job = SimpleNamespace(spec=spec, description={"fingerprint": "some"})
    monkeypatch.setattr(lineup, "prepare", lambda *_: job)
    lineup.train_all({"sac": done, "fql": left}, None)
    assert trained == ["sac", "fql"]
