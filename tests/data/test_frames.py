"""Frames: bytes kept once, stacked by index, read into memory that is stated before it is taken."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import seen

from deflow.core.errors import DeFlowError
from deflow.core.frames import STACK
from deflow.data import frames
from deflow.data.dataset import Dataset
from deflow.training.device_data import DeviceData


def numbered(lengths: list[int], **more: object) -> Dataset:
    """Episodes of one-pixel frames: the row's number in the red."""
    count = sum(lengths)
    pixels = np.zeros((count, 1, 1, 3), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(count)
    given = {"terminals": np.zeros(count, np.bool_), "lengths": lengths, **more}
    return Dataset.from_arrays(
        observations=pixels, actions=np.zeros((count, 2)), rewards=np.zeros(count), **given
    )


@given(st.lists(st.integers(2, 6), min_size=1, max_size=5), st.integers(0, 9))
@settings(max_examples=25)
def test_a_stack_is_the_frames_before_in_the_same_episode(lengths: list[int], seed: int):
    """Held against the rule as FQL's code has it: max(row - k, the episode's first row)."""
    data = numbered(lengths)
    starts = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)
    previous = frames.previous_rows(sum(lengths), data.rows, data.next_rows)
    rows = np.random.default_rng(seed).permutation(sum(lengths)).astype(np.int32)
    found = frames.stack_rows(previous, rows)
    for k, ours in enumerate(reversed(found)):
        np.testing.assert_array_equal(ours, np.maximum(rows - k, starts[rows]))
    assert len(found) == STACK


def test_a_next_observation_that_is_kept_apart_follows_its_row():
    pixels = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    after = np.array([1, 77, 3, 88], np.uint8).reshape(4, 1, 1, 1)
    data = numbered([2, 2])
    data = Dataset.from_arrays(
        pixels, np.zeros((4, 2)), np.zeros(4), [0, 1, 0, 1], next_observations=after
    )
    device = DeviceData.from_dataset(data)
    stacks = np.asarray(device.observed(device.next_rows))[:, 0, 0]
    assert stacks.tolist() == [[0, 0, 1], [0, 1, 77], [2, 2, 3], [2, 3, 88]]


def test_a_true_end_without_a_next_observation_is_no_frame_before():
    data = numbered([3, 2], terminals=np.array([0, 0, 1, 0, 1]))
    previous = frames.previous_rows(5, data.rows, data.next_rows)
    assert previous.tolist() == [0, 0, 1, 3, 3]


def test_batches_hold_stacks_and_those_of_the_next_row():
    data = seen.dataset()
    batch = DeviceData.from_dataset(data).sample(jax.random.key(0), 64, {})
    assert batch.observations.shape == (64, seen.SIDE, seen.SIDE, 3 * STACK)
    assert batch.observations.dtype == batch.next_observations.dtype == jnp.uint8
    # The blue of a frame is ten times its step, so the stacks' steps are known.
    steps = np.asarray(batch.observations)[:, 0, 0, 2::3] // 10
    after = np.asarray(batch.next_observations)[:, 0, 0, 2::3] // 10
    now = steps[:, -1]
    np.testing.assert_array_equal(steps, np.maximum(now[:, None] + [-2, -1, 0], 0))
    np.testing.assert_array_equal(after[:, -1], now + 1)
    np.testing.assert_array_equal(after[:, :-1], steps[:, 1:])
    assert set(now) == set(range(seen.LIMIT))


def test_frames_are_held_once(tmp_path: Path):
    """On this machine the device takes the very bytes that were read."""
    pixels = np.random.default_rng(0).integers(0, 256, (500, 16, 16, 3), np.uint8)
    np.savez_compressed(tmp_path / "a.npz", observations=pixels)
    read = frames.read_frames(tmp_path / "a.npz")
    np.testing.assert_array_equal(read, pixels)
    count = len(read)
    data = Dataset.from_arrays(
        read, np.zeros((count, 5)), np.zeros(count), np.zeros(count), lengths=[100] * 5
    )
    assert data.observations is read
    device = DeviceData.from_dataset(data)
    if jax.devices()[0].platform == "cpu":
        assert device.observations.unsafe_buffer_pointer() == read.ctypes.data
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(device))
    assert kept / count <= 1.1 * 16 * 16 * 3
    stated = frames.memory_of(read.shape)
    assert kept <= stated.total <= 1.1 * read.nbytes
    assert stated.per_frame == 16 * 16 * 3 + frames.BESIDE


def test_what_would_not_fit_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    np.savez_compressed(tmp_path / "a.npz", observations=np.zeros((100, 8, 8, 3), np.uint8))
    monkeypatch.setattr(frames, "available_memory", lambda: 10_000)
    monkeypatch.setattr(frames, "empty", lambda shape: pytest.fail("memory was taken"))
    with pytest.raises(DeFlowError, match=r"256 bytes a frame.* at most 39 frames"):
        frames.read_frames(tmp_path / "a.npz")


def test_memory_is_said_before_it_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    np.savez(tmp_path / "a.npz", observations=np.zeros((1000, 8, 8, 3), np.uint8))
    frames.read_frames(tmp_path / "a.npz")
    said = " ".join(capsys.readouterr().err.split())
    assert "256 bytes a frame" in said


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 8, 8, 3), np.float32), "must be bytes"),
        (np.zeros((4, 8, 8), np.uint8), "must be bytes"),
        (np.zeros((0, 8, 8, 3), np.uint8), "must be bytes"),
        (np.asfortranarray(np.zeros((4, 8, 8, 3), np.uint8)), "must be bytes"),
        (np.array([{}, None], object), "must be bytes"),
    ],
)
def test_other_arrays_are_no_frames(tmp_path: Path, array: np.ndarray, words: str):
    np.savez(tmp_path / "a.npz", observations=array)
    with pytest.raises(DeFlowError, match=words):
        frames.read_frames(tmp_path / "a.npz")


@pytest.mark.parametrize("kept", [0, 10, 300, 2000])
def test_a_damaged_file_is_one_error(tmp_path: Path, kept: int):
    noise = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    np.savez_compressed(tmp_path / "a.npz", observations=noise)
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[:kept])
    with pytest.raises(DeFlowError, match="cannot be read"):
        frames.read_frames(tmp_path / "a.npz")
    with pytest.raises(DeFlowError, match="cannot be read"):
        frames.read_frames(tmp_path / "absent.npz")


@pytest.mark.parametrize(
    ("observations", "words"),
    [
        (np.zeros((4, 8, 8, 3)), r"must be bytes \(uint8\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), "empty"),
        (np.zeros((5, 8, 8, 3), np.uint8), "must agree"),
    ],
)
def test_own_frames_are_checked(observations: np.ndarray, words: str):
    with pytest.raises(DeFlowError, match=words):
        Dataset.from_arrays(observations, np.zeros((4, 2)), np.zeros(4), np.zeros(4))
