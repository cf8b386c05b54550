from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.envs.members import WALK, still

from deflow.core.errors import DeFlowError
from deflow.envs.make import EnvSpec
from deflow.envs.pictures import check_video, save_strip, save_video
from deflow.envs.pool import EnvPool
from deflow.envs.render import record_episode, rendering_backend
from deflow.envs.rollout import rollout

FRAMES = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 12, 16, 3), np.uint8)


def test_a_maze_is_drawn() -> None:
    if rendering_backend() is None:
        pytest.skip("MuJoCo cannot draw on this machine")
    spec = EnvSpec(
        env_id="pointmaze-medium-singletask-task1-v0", kwargs=(("max_episode_steps", 20),)
    )
    frames = record_episode(spec, still, seed=0, episode=0, every=8)
    assert frames.shape == (4, 240, 320, 3), "steps 0, 8, 16 and the last, 20"
    assert frames.std() > 20, "not a blank picture"


def test_the_film_shows_the_episode_that_was_evaluated() -> None:
    with EnvPool(WALK, 1, 1) as pool:
        (result,) = rollout(pool, still, range(3, 4), 5)[0][0]
    assert len(record_episode(WALK, still, seed=5, episode=3)) == result.length + 1


def test_an_environment_may_write_into_its_action() -> None:
    proud = EnvSpec(entry="tests.envs.toys:Proud")
    shown = [record_episode(spec, still, seed=5, episode=3) for spec in (WALK, proud)]
    np.testing.assert_array_equal(*shown)


def test_an_environment_that_fails_while_filmed_says_so() -> None:
    with pytest.raises(DeFlowError, match=r"episode 2, step 3.*the wheel came off"):
        record_episode(EnvSpec(entry="tests.envs.toys:Fails"), still, 0, 2)
    with pytest.raises(DeFlowError, match="draws no pictures; let it accept render_mode"):
        record_episode(EnvSpec(entry="tests.envs.toys:Unseen"), still, 0, 2)
    with pytest.raises(DeFlowError, match="killed by signal 9"):
        record_episode(EnvSpec(entry="tests.envs.toys:Dies"), still, 0, 2)


def test_a_gif_lasts_as_long_as_its_frames(tmp_path: Path) -> None:
    save_video(FRAMES * 10, tmp_path / "film.gif", fps=20)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.size == (16, 12)
        # Frames that look the same are joined, and stay for as long.
        lasting = []
        for number in range(film.n_frames):
            film.seek(number)
            lasting.append(film.info["duration"])
    assert sum(lasting) == 20 * 50
    assert [path.name for path in tmp_path.iterdir()] == ["film.gif"]


def test_an_mp4_is_written_where_ffmpeg_is(tmp_path: Path) -> None:
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        with pytest.raises(DeFlowError, match=r"\.\[video\]"):
            save_video(FRAMES, tmp_path / "film.mp4")
        assert not list(tmp_path.iterdir())
        pytest.skip("ffmpeg is not installed; the refusal was tested instead")
    save_video(np.repeat(FRAMES, 8, axis=1).repeat(8, axis=2), tmp_path / "film.mp4")
    assert (tmp_path / "film.mp4").stat().st_size > 500


@pytest.mark.parametrize("name", ["film.avi", "absent/film.gif", "film"])
def test_a_video_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DeFlowError, match=r"is no video|folder is absent"):
        check_video(tmp_path / name)


def test_a_strip_runs_from_the_first_frame_to_the_last(tmp_path: Path) -> None:
    save_strip(FRAMES, tmp_path / "strip.png", n=5)
    with Image.open(tmp_path / "strip.png") as strip:
        pixels = np.array(strip)
    assert pixels.shape == (24, 64, 3)
    assert pixels[0, ::16, 0].tolist() == [0, 5, 10, 14]
    assert pixels[12, ::16, 0].tolist() == [19, 255, 255, 255]


def test_a_short_film_makes_a_short_strip(tmp_path: Path) -> None:
    save_strip(FRAMES[:3], tmp_path / "strip.png", n=8)
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.size == (48, 12)
