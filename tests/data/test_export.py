"""`deflow data export`: what is written is read as it was, in the environment's units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro
from tests import toy
from tests.data import logs

from deflow.cli import main
from deflow.cli.export import Export
from deflow.core.errors import DeFlowError
from deflow.data.d4rl import TASKS, load_d4rl
from deflow.data.inspect import inspect
from deflow.data.names import parse_task
from deflow.data.ogbench import load_task
from deflow.data.own import load_own, read_raw
from deflow.data.transforms import Box
from deflow.training.source import own_env

h5py = pytest.importorskip("h5py")


def export(*words: object) -> None:
    assert tyro.cli(Export, args=[str(word) for word in words]).run() == 0


def save(path: Path, **more: Any) -> Path:
    np.savez(path, allow_pickle=False, **{**logs.flat(logs.episodes()), **more})
    return path


def test_ones_own_data_are_exported_and_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = toy.save(tmp_path / "toy.npz")
    export(file, "--minari", "mine/toy-v0", "--out", tmp_path / "sets", "--json")
    report = json.loads(capsys.readouterr().out)
    folder = tmp_path / "sets" / "mine" / "toy-v0"
    assert report["folder"] == str(folder)
    assert report["environment"] is None
    assert load_own(folder).dataset.fingerprint() == load_own(file).dataset.fingerprint()
    words = ["train", "toy", "--data", folder, "--run-dir", tmp_path / "run", "--agent", "bc"]
    tiny = ["--steps", 2, "--chunk", 1, "--eval-episodes", 0, "--agent.hidden", 16, 16]
    assert main.run([str(word) for word in (*words, *tiny, "--agent.batch-size", 16)]) == 0
    assert (tmp_path / "run" / "summary.json").is_file()


def test_actions_are_written_in_their_own_bounds(tmp_path: Path) -> None:
    actions = 2 * logs.flat(logs.episodes())["actions"]
    actions[:, 1] += 1
    file = save(tmp_path / "mine.npz", actions=actions)
    with pytest.raises(DeFlowError, match="give them with --action-bounds"):
        export(file, "--minari", "log-v0", "--out", tmp_path)
    bounds = ("--action-bounds", "-2", "-1", "2", "3")
    export(file, "--minari", "log-v0", "--out", tmp_path, *bounds)
    raw = read_raw(tmp_path / "log-v0")
    assert raw.bounds == ((-2, -1), (2, 3))
    np.testing.assert_allclose(raw.actions, actions, atol=3e-5)
    again = load_own(tmp_path / "log-v0")
    assert again.transforms.box == Box((-2.0, -1.0), (2.0, 3.0))
    whole = load_own(file, bounds=Box((-2.0, -1.0), (2.0, 3.0))).dataset
    np.testing.assert_allclose(again.dataset.actions, whole.actions, atol=2e-5)
    assert inspect(str(tmp_path / "log-v0"))["train"]["arrays"]["actions"]["shape"][1] == 2
    export(file, "--minari", "log-v1", "--out", tmp_path, "--action-bounds", "-3", "3")
    assert read_raw(tmp_path / "log-v1").bounds == ((-3, -3), (3, 3))


def test_columns_are_taken_as_inspect_takes_them(tmp_path: Path) -> None:
    flat = logs.flat(logs.episodes())
    flat["act"] = flat.pop("actions")
    del flat["rewards"]
    np.savez(tmp_path / "mine.npz", allow_pickle=False, **flat)
    columns = ("actions=act", "rewards=zero")
    export(tmp_path / "mine.npz", "--minari", "log-v0", "--out", tmp_path, "--columns", *columns)
    whole = load_own(tmp_path / "mine.npz", columns).dataset
    assert load_own(tmp_path / "log-v0").dataset.fingerprint() == whole.fingerprint()


def test_a_task_is_exported_with_its_rewards_and_its_environment(
    tmp_path: Path, small_sets: Path
) -> None:
    name = "pointmaze-medium-navigate-singletask-task1-v0"
    export(name, "--minari", "maze-v0", "--out", tmp_path, "--data-dir", small_sets)
    again = load_own(tmp_path / "maze-v0")
    train, _ = load_task(parse_task(name), small_sets)
    for field in ("observations", "actions", "rewards", "masks"):
        ours, theirs = getattr(again.dataset, field), getattr(train, field)
        np.testing.assert_array_equal(ours[again.dataset.rows], theirs[train.rows])
    env = own_env(again, None)
    assert env is not None
    assert (env.env_id, env.box) == ("pointmaze-medium-singletask-task1-v0", None)


def test_rewards_are_those_that_the_environment_gives(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "antmaze-umaze-v2.hdf5", "w") as file:
        file["observations"], file["actions"] = rng.normal(size=(40, 29)), np.zeros((40, 8))
        file["rewards"] = np.float32(np.arange(40) % 5 == 4)
        file["terminals"], file["timeouts"] = np.zeros(40, bool), np.arange(40) % 10 == 9
    export("antmaze-umaze-v2", "--minari", "ant-v0", "--out", tmp_path, "--data-dir", tmp_path)
    learned = load_d4rl(TASKS["antmaze-umaze-v2"], tmp_path)
    assert set(learned.rewards.tolist()) == {-1.0, 0.0}
    written = load_own(tmp_path / "ant-v0").dataset
    np.testing.assert_array_equal(
        written.rewards[written.rows], learned.rewards[learned.rows] + 1.0
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("mine.npz --minari log", "no id of a Minari set"),
        ("mine.npz --minari there-v0", "already there"),
        ("frames.npz --minari log-v0", "observed as frames"),
        ("visual-cube-single-play-singletask-v0 --minari log-v0", "observed as frames"),
        ("cube-single-play-v0 --minari log-v0", "name one of its tasks"),
        ("cube-single-play-singletask-v0 --minari log-v0 --columns rewards=zero", "of your own"),
        ("cube-single-play-singletask-v0 --minari log-v0 --action-bounds -2 2", "of your own"),
        ("absent.npz --minari log-v0", "no file absent.npz"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "mine.npz")
    save(tmp_path / "frames.npz", observations=np.zeros((24, 4, 4, 3), np.uint8))
    (tmp_path / "there-v0").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DeFlowError, match=said):
        export(*words.split(), "--out", tmp_path, "--data-dir", tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_environment_of_nested_observations_is_not_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    from deflow.data.readers.raw import Environment

    file = save(tmp_path / "mine.npz")
    for flatten, named in ((True, None), (False, "CartPole-v1")):
        raw = dataclasses.replace(
            read_raw(file), environment=Environment("CartPole-v1", (), flatten)
        )
        with monkeypatch.context() as patch:
            patch.setattr("deflow.data.own.read_raw", lambda *_, raw=raw: raw)
            export(file, "--minari", f"log-v{int(flatten)}", "--out", tmp_path)
        found = read_raw(tmp_path / f"log-v{int(flatten)}").environment
        assert (found.env_id if found else None) == named
