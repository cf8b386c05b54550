"""Generated sets: OGBench reads them, and they depend on nothing but their settings."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import multiprocessing as mp
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import ogbench
import pytest
from tests.data.conftest import SETS, STEPS

from deflow.core.errors import DeFlowError
from deflow.data.generate import generate
from deflow.data.provenance import provenance_file, validation_file
from deflow.data.recipes import Recipe, make_collector, recipe_for
from deflow.data.workers import play_all, play_episode


def both(target: Path) -> tuple[bytes, bytes]:
    return target.read_bytes(), validation_file(target).read_bytes()


@pytest.mark.parametrize("dataset", SETS)
def test_ogbench_reads_the_set_with_the_official_keys_and_types(
    dataset: str, small_sets: Path
) -> None:
    name = dataset.replace("-v0", "-singletask-task1-v0")
    env, *splits = ogbench.make_env_and_datasets(name, dataset_dir=str(small_sets), add_info=True)
    types = {
        "observations": np.float32,
        "actions": np.float32,
        "terminals": np.float32,
        "qpos": np.float32,
        "qvel": np.float32,
        "next_observations": np.float32,
        "rewards": np.float32,
        "masks": np.float32,
    }
    if dataset.startswith(("scene", "puzzle")):
        types["button_states"] = np.int64
    for split, episodes in zip(splits, (2, 1), strict=True):
        assert {key: array.dtype for key, array in split.items()} == types
        assert len(split["observations"]) == episodes * (STEPS - 1)
        assert split["observations"].shape[1:] == env.observation_space.shape
        assert split["actions"].shape[1:] == env.action_space.shape
        assert split["terminals"].sum() == episodes
    with np.load(small_sets / f"{dataset}.npz") as raw:
        assert raw["terminals"].dtype == np.bool_


@pytest.mark.parametrize(
    "dataset",
    [pytest.param("scene-noisy-v0", marks=pytest.mark.slow), "pointmaze-medium-navigate-v0"],
)
def test_the_files_are_the_same_for_one_worker_and_two(dataset: str, tmp_path: Path) -> None:
    one, two = (
        generate(dataset, episodes=3, workers=n, data_dir=tmp_path / str(n), steps=STEPS)
        for n in (1, 2)
    )
    assert both(one) == both(two)
    assert provenance_file(one).read_bytes() == provenance_file(two).read_bytes()


@pytest.mark.parametrize(
    "dataset",
    [
        "cube-double-play-v0",
        pytest.param("cube-double-noisy-v0", marks=pytest.mark.slow),
        pytest.param("scene-play-v0", marks=pytest.mark.slow),
        pytest.param("scene-noisy-v0", marks=pytest.mark.slow),
        pytest.param("puzzle-3x3-play-v0", marks=pytest.mark.slow),
        pytest.param("puzzle-3x3-noisy-v0", marks=pytest.mark.slow),
        "pointmaze-medium-navigate-v0",
        pytest.param("pointmaze-teleport-navigate-v0", marks=pytest.mark.slow),
    ],
)
def test_an_episode_is_the_same_whatever_was_played_before(dataset: str) -> None:
    """Nothing may stay in an environment or an oracle from one episode to the next."""
    recipe = dataclasses.replace(recipe_for(dataset), steps=100)
    up, down = (
        {index: play_episode(collector, dataset, 0, index) for index in order}
        for collector, order in (
            (make_collector(recipe), (0, 1, 2, 3)),
            (make_collector(recipe), (3, 2, 1, 0)),
        )
    )
    for index in range(4):
        assert {key: array.tobytes() for key, array in up[index].items()} == {
            key: array.tobytes() for key, array in down[index].items()
        }
    assert not np.array_equal(up[0]["observations"], up[1]["observations"])


def test_another_seed_gives_other_episodes() -> None:
    recipe = dataclasses.replace(recipe_for("pointmaze-medium-navigate-v0"), steps=10)
    collector = make_collector(recipe)
    zero, one = (play_episode(collector, recipe.dataset, seed, 0) for seed in (0, 1))
    assert not np.array_equal(zero["observations"], one["observations"])


_KILLED = """
import sys
from pathlib import Path
from deflow.data.generate import generate
if __name__ == "__main__":
    generate("cube-single-play-v0", episodes=8, workers=2, seed=0, steps=150,
             data_dir=Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_files(tmp_path: Path) -> None:
    killed, script = tmp_path / "killed", tmp_path / "run.py"
    script.write_text(_KILLED)
    source = Path(__file__).resolve().parents[2] / "src"
    run = subprocess.Popen(
        [sys.executable, str(script), str(killed)],
        env={**os.environ, "PYTHONPATH": str(source)},
        stderr=subprocess.DEVNULL,
    )
    partial = killed / ".cube-single-play-v0.partial"
    _until(lambda: len(list(partial.glob("episode-*.npz"))) >= 2, seconds=60)
    children = _children(run.pid)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert children
    _until(lambda: not any(_alive(pid) for pid in children), seconds=20)
    assert not (killed / "cube-single-play-v0.npz").exists()

    settings = {"episodes": 8, "seed": 0, "steps": 150}
    with pytest.raises(DeFlowError, match=r"unfinished set of other settings \(seed 0 there, 1"):
        generate("cube-single-play-v0", data_dir=killed, **(settings | {"seed": 1}))
    damaged = next(iter(sorted(partial.glob("episode-*.npz"))))
    damaged.write_bytes(damaged.read_bytes()[:1000])
    resumed = generate("cube-single-play-v0", data_dir=killed, workers=2, **settings)
    whole = generate("cube-single-play-v0", data_dir=tmp_path / "whole", workers=2, **settings)
    assert both(resumed) == both(whole)
    assert sorted(path.name for path in killed.iterdir()) == [
        "cube-single-play-v0-val.npz",
        "cube-single-play-v0.json",
        "cube-single-play-v0.npz",
    ]


def test_files_that_are_there_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = "pointmaze-medium-navigate-v0"
    settings = {"data_dir": tmp_path, "steps": 20}
    target = generate(dataset, episodes=1, **settings)
    before, stamp = both(target), target.stat().st_mtime_ns
    generate(dataset, episodes=1, **settings)
    assert target.stat().st_mtime_ns == stamp
    assert "nothingtodo" in "".join(capsys.readouterr().err.split())  # wherever the line breaks
    with pytest.raises(DeFlowError, match=r"other settings \(episodes 1 there, 2 here\)"):
        generate(dataset, episodes=2, **settings)
    assert both(target) == before
    generate(dataset, episodes=2, overwrite=True, **settings)
    assert both(target) != before

    provenance_file(target).unlink()
    with pytest.raises(DeFlowError, match="was not made by this command"):
        generate(dataset, episodes=2, **settings)


def test_two_processes_do_not_make_the_same_set(tmp_path: Path) -> None:
    dataset = "pointmaze-medium-navigate-v0"
    with open(tmp_path / f".{dataset}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DeFlowError, match="Another process is making"):
            generate(dataset, episodes=1, data_dir=tmp_path, steps=20)


def test_an_updated_library_keeps_finished_sets_and_refuses_unfinished_ones(tmp_path: Path) -> None:
    dataset = "pointmaze-medium-navigate-v0"
    target = generate(dataset, episodes=1, data_dir=tmp_path, steps=20)
    made = json.loads(provenance_file(target).read_text())
    made["settings"]["versions"]["mujoco"] = "1.0"
    provenance_file(target).write_text(json.dumps(made))
    stamp = target.stat().st_mtime_ns
    generate(dataset, episodes=1, data_dir=tmp_path, steps=20)
    assert target.stat().st_mtime_ns == stamp
    partial = tmp_path / "other" / f".{dataset}.partial"
    partial.mkdir(parents=True)
    (partial / "manifest.json").write_text(json.dumps(made["settings"]))
    with pytest.raises(DeFlowError, match=r"unfinished set .*\(mujoco 1.0 there"):
        generate(dataset, episodes=1, data_dir=tmp_path / "other", steps=20)


def test_a_kill_between_the_two_final_renames_is_mended(tmp_path: Path) -> None:
    dataset = "pointmaze-medium-navigate-v0"
    target = generate(dataset, episodes=1, data_dir=tmp_path, steps=20)
    before = both(target)
    partial = tmp_path / f".{dataset}.partial"
    partial.mkdir()
    settings = json.loads(provenance_file(target).read_text())["settings"]
    (partial / "manifest.json").write_text(json.dumps(settings))
    (partial / "finishing").touch()
    provenance_file(target).unlink()
    validation_file(target).unlink()
    generate(dataset, episodes=1, data_dir=tmp_path, steps=20)
    assert both(target) == before
    assert not partial.exists()


def test_what_goes_wrong_in_a_worker_is_one_error(tmp_path: Path) -> None:
    nowhere = Recipe("cube-single-play-v0", "cube-nowhere", "play", 1, 20)
    with pytest.raises(DeFlowError, match=r"Episode 7 of .* failed in a worker") as raised:
        list(play_all(nowhere, indices=[7], workers=1, seed=0, folder=tmp_path))
    assert "Traceback" in str(raised.value.__cause__)

    recipe = Recipe("cube-single-play-v0", "cube-single", "play", 1, 20)
    playing = play_all(recipe, indices=range(10_000), workers=1, seed=0, folder=tmp_path)
    next(playing)
    (worker,) = [p for p in mp.active_children() if p.name == "deflow-generate"]
    worker.kill()
    with pytest.raises(DeFlowError, match=r"its worker ended with exit code -9"):
        list(playing)
    assert not [p for p in mp.active_children() if p.name == "deflow-generate"]


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("antmaze-large-navigate-v0", "expert"),
        ("visual-cube-triple-play-v0", "There is no visual dataset"),
        ("pointmaze-large-stitch-v0", "only 'navigate' sets"),
        ("cube-singel-play-v0", "did you mean cube-single-play-v0"),
    ],
)
def test_sets_that_cannot_be_made_are_refused(dataset: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DeFlowError, match=words):
        generate(dataset, data_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DeFlowError, match="cannot be written"):
        generate("cube-single-play-v0", data_dir=tmp_path / "file" / "folder")


def _until(condition, *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
