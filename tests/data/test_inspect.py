"""`deflow data`: the commands, and the numbers that they print."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro
from tests.data import logs

from deflow.cli import main
from deflow.cli.data import Generate, Inspect
from deflow.cli.iav import Iav
from deflow.core.errors import DeFlowError
from deflow.data.dataset import Dataset
from deflow.data.inspect import describe, inspect
from deflow.data.provenance import file_entry, provenance_file

SLOW = pytest.mark.slow


def run(capsys: pytest.CaptureFixture[str], command: type[Any], *args: str) -> str:
    assert tyro.cli(command, args=list(args)).run() == 0
    return capsys.readouterr().out


def test_numbers_of_a_set_made_by_hand() -> None:
    data = Dataset.from_arrays(
        observations=np.arange(10.0).reshape(5, 2),
        actions=np.full((5, 1), 0.5),
        rewards=[-1, -1, 0, -1, -2],
        terminals=[0, 0, 1, 0, 0],
    )
    numbers = json.loads(json.dumps(describe(data)))
    assert (numbers["transitions"], numbers["episodes"]) == (4, 2)
    assert numbers["rewards"]["values"] == {"-1.0": 3, "0.0": 1}
    assert numbers["returns"] == {"min": -2.0, "median": -1.5, "mean": -1.5, "max": -1.0}
    assert numbers["termination_rows"] == numbers["termination_episodes"] == 1
    solved = describe(data, solved=True)
    assert solved["success_rows"] == solved["success_episodes"] == 1
    assert not [key for key in numbers if "success" in key]
    assert numbers["rows"] == 5
    assert numbers["episode_lengths"] == {"min": 1.0, "median": 2.0, "mean": 2.0, "max": 3.0}
    assert numbers["arrays"]["observations"]["shape"] == [5, 2]
    assert numbers["arrays"]["observations"]["column_max"] == [8.0, 9.0]
    assert numbers["bytes"] == data.nbytes == 5 * (2 + 1 + 1 + 1) * 4 + 2 * 4 * 4 + 2 * 4


def test_a_set_is_made_and_inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--data-dir", str(tmp_path))
    name = "pointmaze-medium-navigate-v0"
    made = json.loads(
        run(capsys, Generate, name, "--episodes", "2", "--workers", "1", "--json", *where)
    )
    assert made["settings"]["episodes"] == 2
    assert Path(made["file"]).exists()
    assert name in run(capsys, Generate, name, "--episodes", "2", "--workers", "1", *where)

    seen = json.loads(run(capsys, Inspect, name, "--json", "--verify", *where))
    assert seen["verified"] is True
    assert seen["train"]["transitions"] == 2000
    assert "rewards" not in seen["train"]
    counts = seen["success_rows_of_tasks"]
    assert len(counts) == 5

    task = "pointmaze-medium-navigate-singletask-v0"
    of_task = json.loads(run(capsys, Inspect, task, "--json", *where))
    assert of_task["default_task"] is True
    assert of_task["train"]["success_rows"] == counts[of_task["task"]]["train"]
    assert of_task["train"]["rewards"]["values"].keys() <= {"-1.0", "0.0"}
    for text in (run(capsys, Inspect, task, *where), run(capsys, Inspect, name, *where)):
        assert "2,000" in text
    assert "task5" in text
    assert "2,000" in run(capsys, Inspect, made["file"])


def test_own_files_are_inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.npz"
    arrays = {"observations": np.zeros((3, 2)), "actions": np.zeros((3, 1))}
    np.savez(path, **arrays, terminals=[0, 0, 1], rewards=[0.0, 1.0, 2.0])
    seen = json.loads(run(capsys, Inspect, str(path), "--json"))
    assert seen["train"]["returns"]["max"] == 3.0
    np.savez(path, **arrays, terminals=[0, 0, 1])
    with pytest.raises(DeFlowError, match="neither rewards"):
        run(capsys, Inspect, str(path))
    with pytest.raises(DeFlowError, match="There is no file"):
        run(capsys, Inspect, str(tmp_path / "absent.npz"))


# Frames ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seen(small_sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A visual set beside the episodes of `cube-single-play-v0`: frames of known bytes."""
    folder = tmp_path_factory.mktemp("seen")
    for split in ("", "-val"):
        with np.load(small_sets / f"cube-single-play-v0{split}.npz") as states:
            arrays = dict(states)
        count = len(arrays["observations"])
        frames = np.random.default_rng(0).integers(7, 250, (count, 64, 64, 3), np.uint8)
        frames[..., 2] = 9
        np.savez(
            folder / f"visual-cube-single-play-v0{split}.npz",
            allow_pickle=False,
            **{**arrays, "observations": frames},
        )
    return folder


@pytest.mark.parametrize(
    "task", ["", *(pytest.param(t, marks=SLOW) for t in ("-singletask", "-singletask-task1"))]
)
def test_visual_sets_are_inspected_like_those_of_states(
    seen: Path, small_sets: Path, task: str
) -> None:
    name = f"cube-single-play{task}-v0"
    ours, states = inspect(f"visual-{name}", seen), inspect(name, small_sets)
    for key in ("transitions", "episodes", "episode_lengths"):
        assert ours["train"][key] == states["train"][key]
    numbers = json.loads(json.dumps(ours))["train"]["arrays"]["observations"]
    assert numbers["shape"] == [ours["train"]["transitions"] + 2, 64, 64, 3]
    assert (numbers["channel_min"], numbers["channel_max"]) == ([7, 7, 9], [249, 249, 9])
    with np.load(seen / "visual-cube-single-play-v0.npz") as arrays:
        frames = arrays["observations"].astype(np.float64)
    assert numbers["mean"] == pytest.approx(frames.mean())
    assert numbers["std"] == pytest.approx(frames.std())
    if task == "-singletask-task1":
        assert ours["train"]["rewards"] == states["train"]["rewards"]
    if not task:
        counts = states["success_rows_of_tasks"]["cube-single-play-singletask-task1-v0"]
        task1 = "visual-cube-single-play-singletask-task1-v0"
        assert ours["success_rows_of_tasks"] == {task1: counts}


def test_a_visual_set_is_inspected_by_its_path(
    seen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(seen / "visual-cube-single-play-v0.npz")
    assert "x64x64x3 uint8" in run(capsys, Inspect, path)


def test_the_iav_of_frames_is_refused_before_they_are_read(
    seen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.zeros((8, 4, 4, 3), np.uint8)
    arrays = {"frames": frames, "actions": np.zeros((8, 2))}
    np.savez(tmp_path / "mine.npz", allow_pickle=False, **arrays)
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "mine.hdf5", "w") as file:
        for name, array in arrays.items():
            file[f"demo_0/{name}"] = array
    path = seen / "visual-cube-single-play-v0.npz"
    monkeypatch.setattr("deflow.data.npz.read_npz", None)
    monkeypatch.setattr("deflow.data.states.load_own", None)
    for name in ("visual-cube-single-play-v0", "visual-cube-single-play-singletask-v0", str(path)):
        with pytest.raises(DeFlowError, match="observed as pictures"):
            run(capsys, Iav, name, "--data-dir", str(tmp_path / "nowhere"))
    for name in ("mine.npz", "mine.hdf5"):
        with pytest.raises(DeFlowError, match="observed as pictures"):
            run(capsys, Iav, str(tmp_path / name), "--columns", "observations=frames")


# Bounds ----------------------------------------------------------------------------------------


def test_saturation_is_seen_at_the_bounds_that_are_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    actions = np.clip(rng.normal(size=(100, 1)), -0.5, 0.5)
    arrays = {"observations": rng.normal(size=(100, 2)), "actions": actions}
    path = tmp_path / "mine.npz"
    ends = np.arange(100) % 10 == 9
    np.savez(path, allow_pickle=False, **arrays, rewards=rng.normal(size=100), terminals=ends)
    findings = json.loads(run(capsys, Inspect, str(path), "--json"))["suspicious"]
    assert not [finding for finding in findings if "edge of its box" in finding]
    words = (str(path), "--json", "--action-bounds", "-0.5", "0.5")
    seen = json.loads(run(capsys, Inspect, *words))
    assert [finding for finding in seen["suspicious"] if "edge of its box" in finding]
    assert seen["train"]["arrays"]["actions"]["max"] == pytest.approx(1.0, abs=1e-4)
    wide = json.loads(run(capsys, Inspect, str(path), "--json", "--action-bounds", "-2", "2"))
    assert wide["train"]["arrays"]["actions"]["max"] == pytest.approx(0.25)
    with pytest.raises(DeFlowError, match="must lie in their bounds"):
        run(capsys, Inspect, str(path), "--action-bounds", "-0.4", "0.5")
    with pytest.raises(DeFlowError, match="as many lows as highs"):
        run(capsys, Inspect, str(path), "--action-bounds", "1")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (Inspect, "--columns rewards=zero"),
        (Inspect, "--action-bounds -2 2"),
        (Iav, "--columns rewards=zero"),
        (Iav, "--action-bounds -2 2"),
        (Iav, "--normalize-observations"),
    ],
)
def test_options_of_own_data_are_refused_beside_a_set(
    command: type[Any], option: str, small_sets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = option.split()
    for name in ("cube-single-play-v0", "maze2d-umaze-v1"):
        with pytest.raises(DeFlowError, match=f"{words[0]} is for data of your own"):
            run(capsys, command, name, "--data-dir", str(small_sets), *words)


# What marks the ends ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "silent"),
    [
        ({}, True),
        ({"terminals": np.arange(8) == 7}, True),
        ({"terminals": np.arange(8) == 3}, False),
        ({"timeouts": np.arange(8) == 3}, False),
        ({"lengths": [3, 5]}, False),
    ],
)
def test_a_file_that_marks_no_ends_is_suspicious(
    more: dict[str, Any], silent: bool, tmp_path: Path
) -> None:
    arrays = {"observations": np.eye(8), "actions": np.eye(8)[:, :2], "rewards": np.arange(8.0)}
    arrays |= {"terminals": np.zeros(8, bool), **more}
    np.savez(tmp_path / "mine.npz", allow_pickle=False, **arrays)
    findings = inspect(str(tmp_path / "mine.npz"))["suspicious"]
    told = [finding for finding in findings if "nothing marks where trajectories end" in finding]
    assert bool(told) is silent
    named = inspect(str(tmp_path / "mine.npz"), columns=["rewards=rewards"])["suspicious"]
    assert named == findings


def test_an_episode_column_marks_the_ends(tmp_path: Path) -> None:
    arrays = {"observations": np.eye(8), "actions": np.eye(8)[:, :2], "run": np.arange(8) // 4}
    np.savez(tmp_path / "mine.npz", allow_pickle=False, **arrays)
    columns = ["rewards=zero", "terminals=none"]
    path = str(tmp_path / "mine.npz")
    assert "nothing marks" in " ".join(inspect(path, columns=columns)["suspicious"])
    found = inspect(path, columns=[*columns, "episode=run"])
    assert "nothing marks" not in " ".join(found["suspicious"])
    assert found["train"]["episodes"] == 2


# Checksums -------------------------------------------------------------------------------------


def spoil(path: Path) -> None:
    """Another byte in the middle, of the same length."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_a_d4rl_file_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "maze2d-umaze-v1.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"] = np.random.default_rng(0).normal(size=(900, 4))
        file["actions"], file["rewards"] = np.zeros((900, 2)), np.zeros(900)
        file["terminals"] = np.zeros(900, bool)
    words = ("maze2d-umaze-v1", "--data-dir", str(tmp_path))
    run(capsys, Inspect, *words)
    with pytest.raises(DeFlowError, match="No checksum was kept"):
        run(capsys, Inspect, *words, "--verify")
    provenance_file(path).write_text(json.dumps({"files": {path.name: file_entry(path)}}))
    assert json.loads(run(capsys, Inspect, *words, "--verify", "--json"))["verified"] is True
    assert "checksums" in run(capsys, Inspect, *words, "--verify")
    spoil(path)
    with pytest.raises(DeFlowError, match="another checksum"):
        run(capsys, Inspect, *words, "--verify")


def test_a_generated_file_is_verified_by_its_path_and_ones_own_is_not(
    small_sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = small_sets / "cube-single-play-v0.npz"
    copy = tmp_path / path.name
    assert "checksums" in run(capsys, Inspect, str(path), "--verify")
    copy.write_bytes(path.read_bytes())
    for beside in ("", "[]", '{"files": []}', '{"files": {"other.npz": {}}}'):
        provenance_file(copy).write_text(beside)
        with pytest.raises(DeFlowError, match="none was kept"):
            run(capsys, Inspect, str(copy), "--verify")
    provenance_file(copy).write_bytes(provenance_file(path).read_bytes())
    spoil(copy)
    with pytest.raises(DeFlowError, match="another checksum"):
        run(capsys, Inspect, str(copy), "--verify")


# Adroit's sets ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("pen-expert-v1 --policy p.npz --overwrite", "never overwritten"),
        ("pen-expert-v1 --policy p.npz --workers 2", "one process; leave --workers"),
        ("door-human-v1 --demonstrations d.npz --overwrite", "never overwritten"),
        ("door-human-v1 --demonstrations d.npz --episodes 3", "leave --episodes"),
        ("door-human-v1 --demonstrations d.npz --seed 3", "leave --seed"),
        ("door-human-v1 --demonstrations d.npz --workers 1", "no file d.npz"),
    ],
)
def test_what_adroits_sets_do_not_take_is_refused(
    words: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeFlowError, match=said):
        run(capsys, Generate, *words.split(), "--data-dir", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


# The examples ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["data inspect", "data iav"])
def test_the_examples_of_the_help_run_as_they_are_shown(
    command: str,
    small_sets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("h5py")
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEFLOW_DATA_DIR", str(small_sets))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("COLUMNS", "80")
    log = logs.episodes((15, 15, 15))
    logs.write_npz(tmp_path / "my_arrays.npz", log)
    arrays = logs.flat(log)
    np.savez(
        tmp_path / "log.npz", allow_pickle=False, **{**arrays, "actions": 2 * arrays["actions"]}
    )
    whole = logs.table(log)
    assert isinstance(whole, pa.Table)
    names = {"observations": "state", "episode": "run"}
    pq.write_table(
        whole.rename_columns([names.get(n, n) for n in whole.column_names]), "log.parquet"
    )
    logs.write_minari(tmp_path / "minari" / "door" / "human-v2", log)

    with pytest.raises(SystemExit):
        main.run([*command.split(), "--help"])
    shown = capsys.readouterr().out
    examples = re.findall(rf"^\W*deflow ({command} .*?)\W*$", shown, re.MULTILINE)
    assert len(examples) >= 5
    for example in examples:
        assert main.run(shlex.split(example)) == 0, example
        assert capsys.readouterr().out
