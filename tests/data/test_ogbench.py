"""Loading a task: the same transitions as OGBench's own loader, and no traceback for bad files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ogbench
import pytest

from deflow.core.errors import DeFlowError
from deflow.data import folder as folders
from deflow.data.names import parse_task
from deflow.data.ogbench import load_task
from deflow.data.provenance import provenance_file

TASK = parse_task("scene-play-singletask-task4-v0")
FILES = ("scene-play-v0.npz", "scene-play-v0-val.npz", "scene-play-v0.json")

Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture
def sets(small_sets: Path, tmp_path: Path) -> Path:
    """A copy of the scene's set that a test may damage."""
    for name in FILES:
        shutil.copy(small_sets / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "cube-single-play-singletask-task1-v0",
        "cube-single-noisy-singletask-v0",
        "scene-play-singletask-task4-v0",
        "puzzle-3x3-play-singletask-task3-v0",
        "pointmaze-medium-navigate-singletask-task2-v0",
    ],
)
def test_transitions_are_those_of_ogbench(name: str, small_sets: Path) -> None:
    _, *theirs = ogbench.make_env_and_datasets(name, dataset_dir=str(small_sets))
    for ours, reference in zip(load_task(parse_task(name), small_sets), theirs, strict=True):
        ours_by_key = {
            "observations": ours.observations[ours.rows],
            "next_observations": ours.observations[ours.next_rows],
            "actions": ours.actions[ours.rows],
            "rewards": ours.rewards[ours.rows],
            "masks": ours.masks[ours.rows],
        }
        limit = np.float32(1 - 1e-5)
        reference["actions"] = np.clip(reference["actions"], -limit, limit)
        for key, array in ours_by_key.items():
            assert array.dtype == reference[key].dtype
            np.testing.assert_array_equal(array, reference[key], err_msg=key)
        is_last = np.isin(ours.next_rows, ours.episode_ends)
        np.testing.assert_array_equal(is_last, reference["terminals"].astype(bool))


def test_loading_leaves_the_global_random_state_alone(small_sets: Path) -> None:
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    load_task(parse_task("pointmaze-medium-navigate-singletask-task1-v0"), small_sets)
    assert np.random.random() == expected  # noqa: NPY002


def rewrite(path: Path, change: Callable[[Arrays], None]) -> None:
    with np.load(path) as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez_compressed(path, **arrays)
    provenance_file(path).unlink()


def widen(key: str) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.update({key: np.pad(arrays[key], ((0, 0), (0, 1)))})


def put(key: str, index: Any, value: float) -> Callable[[Arrays], None]:
    return lambda arrays: arrays[key].__setitem__(index, value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda arrays: arrays.pop("qpos"), "lacks qpos"),
        (lambda arrays: arrays.pop("button_states"), "lacks button_states, from which the rewards"),
        (widen("observations"), r"observations have shape .* must have 40 columns"),
        (widen("actions"), "must have 5 columns"),
        (widen("qpos"), "must have 25 columns"),
        (put("observations", (7, 3), np.nan), "row 7, column 3 is nan"),
        (put("qpos", (5, 2), np.inf), "qpos must be finite: row 5, column 2 is inf"),
        (put("actions", (9, 4), 2.0), "row 9, column 4 is 2"),
        (put("terminals", -1, False), "last row of each trajectory"),
        (lambda arrays: arrays.update(actions=arrays["actions"][:-1]), "actions have 79 rows"),
        (lambda arrays: arrays.update(observations=np.full((80, 40), None)), "Python objects"),
        (lambda arrays: arrays.clear(), "it holds nothing"),
    ],
)
def test_a_set_that_does_not_fit_is_one_sentence(
    change: Callable[[Arrays], None], words: str, sets: Path
) -> None:
    rewrite(sets / FILES[0], change)
    with pytest.raises(DeFlowError, match=words) as raised:
        load_task(TASK, sets)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: b"", "is empty"),
        (lambda data: data[: len(data) // 2], "truncated or is no .npz"),
        (lambda data: b"not an archive at all", "truncated or is no .npz"),
        (lambda data: data[:2000] + bytes(500) + data[2500:], "truncated or is no .npz"),
    ],
)
@pytest.mark.parametrize("split", [0, 1])
def test_a_damaged_file_is_one_sentence(
    damage: Callable[[bytes], bytes], words: str, split: int, sets: Path
) -> None:
    path = sets / FILES[split]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DeFlowError, match=r"bytes, and had|truncated"):
        load_task(TASK, sets)
    provenance_file(sets / FILES[0]).unlink()
    with pytest.raises(DeFlowError, match=words) as raised:
        load_task(TASK, sets)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_single_array_is_no_set(sets: Path) -> None:
    provenance_file(sets / FILES[0]).unlink()
    with open(sets / FILES[0], "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DeFlowError, match=r"single array \(.npy\)"):
        load_task(TASK, sets)


def test_a_set_that_is_not_there_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DeFlowError, match="deflow data generate scene-play-v0 --episodes 300"):
        load_task(TASK, tmp_path, download=False)
    ant = parse_task("antmaze-large-navigate-singletask-task1-v0")
    with pytest.raises(DeFlowError, match=r"--policy RUN .an ant's expert, see docs/ant.md"):
        load_task(ant, tmp_path, download=False)
    humanoid = parse_task("humanoidmaze-large-navigate-singletask-task1-v0")
    with pytest.raises(DeFlowError, match="by hand"):
        load_task(humanoid, tmp_path, download=False)


def test_the_folder_is_found(
    sets: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path_factory.mktemp("empty")
    monkeypatch.setenv(folders.VARIABLE, str(sets))
    assert folders.data_folder() == sets
    assert load_task(TASK, download=False)[0].transitions == 78
    assert folders.data_folder(empty) == empty
    monkeypatch.setattr(folders, "OGBENCH_FOLDER", sets)
    assert load_task(TASK, empty, download=False)[0].transitions == 78
    monkeypatch.delenv(folders.VARIABLE)
    assert folders.data_folder().parts[-2:] == ("deflow", "data")
