"""The visual sets: their names, and frames made beside the very episodes of the states."""

from __future__ import annotations

import gymnasium
import numpy as np
import ogbench  # noqa: F401  (registers the environments)
import pytest

from deflow.agents.registry import preset
from deflow.core.errors import DeFlowError
from deflow.data import visual
from deflow.data.generate import generate
from deflow.data.names import Task, parse_dataset, parse_task
from deflow.data.ogbench import load_task
from deflow.data.recipes import recipe_for
from deflow.envs.render import rendering_backend
from deflow.training.task import env_name

STEPS = 12


@pytest.mark.parametrize("name", visual.TASKS)
def test_each_published_task_has_a_set_an_environment_and_settings(name: str) -> None:
    task = parse_task(name)
    dataset = name.replace("-singletask-task1", "")
    environment = name.split("-play")[0]
    assert task == Task(name, dataset, f"{environment}-singletask-task1-v0", False, True)
    assert task.env_id in gymnasium.registry
    assert parse_task(name.replace("-task1", "")).defaulted
    assert parse_dataset(name) == parse_dataset(dataset) == dataset
    assert recipe_for(dataset).environment == environment
    assert preset("deflow", env_name(name))


def test_the_expected_duration_counts_frames_and_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Trial:
        returncode, stdout, stderr = 0, '{"seconds": 0.1, "bytes": 12288}\n', ""

    monkeypatch.setattr(visual.subprocess, "run", lambda *words, **options: Trial)
    monkeypatch.setattr(visual.os, "cpu_count", lambda: 8)
    said = visual.expected_duration(recipe_for("visual-cube-single-play-v0"), 11, 2)
    assert "11 episodes of 1,001 frames, 100 ms each, 2 at a time: about 9 min 11 s" in said
    assert "135.3 MB" in said


def test_a_machine_that_cannot_draw_says_so_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    class Trial:
        returncode, stdout, stderr = 1, "", "Traceback\nImportError: no EGL"

    monkeypatch.setattr(visual.subprocess, "run", lambda *words, **options: Trial)
    with pytest.raises(DeFlowError, match=r"ImportError: no EGL.*libegl1"):
        generate("visual-cube-single-play-v0", episodes=1, data_dir=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_frames_stand_beside_the_episodes_of_the_states(
    monkeypatch: pytest.MonkeyPatch, tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    if rendering_backend() != "egl":
        pytest.skip("this machine cannot draw on EGL")
    settings = {"episodes": 1, "data_dir": tmp_path, "steps": STEPS}
    target = generate("visual-cube-single-play-v0", **settings)
    assert f"2 episodes of {STEPS} frames" in " ".join(capsys.readouterr().err.split())
    plain = generate("cube-single-play-v0", **settings)
    with np.load(target) as seen, np.load(plain) as known:
        assert seen["observations"].shape == (STEPS, 64, 64, 3)
        assert seen["observations"].dtype == np.uint8
        assert {*seen.files} == {*known.files}
        for key in set(known.files) - {"observations"}:
            np.testing.assert_array_equal(seen[key], known[key])
        # Each frame is drawn for its own row: an arm that moves does not look the same.
        assert len(np.unique(seen["observations"], axis=0)) > STEPS // 2
    task = parse_task("visual-cube-single-play-singletask-task1-v0")
    ours = load_task(task, tmp_path)
    theirs = load_task(parse_task("cube-single-play-singletask-task1-v0"), tmp_path)
    for one, other in zip(ours, theirs, strict=True):
        assert one.frame == (64, 64, 3)
        for name in ("actions", "rewards", "masks", "rows", "next_rows", "episode_ends"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
