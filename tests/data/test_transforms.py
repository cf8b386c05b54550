"""To the agents' units and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.data import logs

from deflow.core.errors import DeFlowError
from deflow.data.own import load_own, read_raw
from deflow.data.readers.raw import Bounds, RawData
from deflow.data.transforms import Box, Normal, Transforms, reward_scale

bound = st.floats(-1e3, 1e3, allow_subnormal=False)


def raw(actions: NDArray[np.float64] | None = None, rewards: list[float] | None = None) -> RawData:
    given_actions = np.linspace(-2, 6, 12).reshape(6, 2) if actions is None else actions
    rng = np.random.default_rng(0)
    return RawData(
        name="mine",
        observations=rng.normal(3.0, 5.0, size=(len(given_actions), 3)),
        actions=given_actions,
        rewards=np.arange(6.0) if rewards is None else np.asarray(rewards),
        terminals=np.asarray([0, 0, 1, 0, 0, 1], np.bool_),
        next_observations=rng.normal(3.0, 5.0, size=(len(given_actions), 3)),
    )


@given(bound, st.floats(1e-3, 1e3), st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_actions_come_back(low: float, width: float, shares: list[float]) -> None:
    box = Box((low, -1.0), (low + width, 1.0))
    actions = np.stack([low + np.asarray(shares) * width, np.asarray(shares)], axis=1)
    actions[:, 0] = np.clip(actions[:, 0], box.low[0], box.high[0])
    scaled = box.scale(actions)
    assert np.abs(scaled).max() <= 1.0
    near = 1e-6 * max(1.0, abs(low) + width)
    np.testing.assert_allclose(box.back(scaled), actions, atol=near)
    np.testing.assert_allclose(scaled[:, 1], actions[:, 1], atol=1e-15)


@given(bound, st.floats(1e-3, 1e3))
def test_the_edges_of_a_box_are_the_edges_of_the_unit_box(low: float, width: float) -> None:
    box = Box((low,), (low + width,))
    edges = np.asarray([[box.low[0]] * 3, [box.high[0]] * 3])
    np.testing.assert_array_equal(box.scale(edges), [[-1.0] * 3, [1.0] * 3])
    np.testing.assert_array_equal(box.back([[-1.0] * 3, [1.0] * 3]), np.float32(edges))
    assert box.back([1.5, -1.5, 0.0]).max() <= np.float32(box.high[0])


def test_a_box_of_the_data_holds_them() -> None:
    actions = np.asarray([[0.0, 5.0, -3.0], [2.0, 5.0, 4.0]])
    box = Box.of(actions)
    assert box == Box((0.0, 4.0, -3.0), (2.0, 6.0, 4.0))
    np.testing.assert_array_equal(box.scale(actions), [[-1, 0, -1], [1, 0, 1]])


@pytest.mark.parametrize(
    ("low", "high", "error"),
    [
        ((), (), "as many low"),
        ((0.0,), (1.0, 2.0), "as many low"),
        ((1.0,), (1.0,), "below the high"),
        ((0.0,), (float("inf"),), "finite"),
        ((float("nan"),), (1.0,), "finite"),
    ],
)
def test_bounds_that_are_none(low: tuple[float, ...], high: tuple[float, ...], error: str) -> None:
    with pytest.raises(DeFlowError, match=error):
        Box(low, high)


def test_actions_out_of_their_bounds_are_named_in_the_users_units() -> None:
    with pytest.raises(DeFlowError, match=r"row 5, column 1 is 6, outside \[-3, 5\]"):
        Transforms(Box((-3.0, -3.0), (9.0, 5.0))).apply(raw())
    with pytest.raises(DeFlowError, match="2 columns, and bounds for 3"):
        Transforms(Box((-9.0,) * 3, (9.0,) * 3)).apply(raw())


def test_observations_are_normalised_alike_in_training_and_acting() -> None:
    given_data = raw()
    normal = Normal.of(given_data.observations)
    transforms = Transforms(normal=normal)
    changed = transforms.apply(given_data)
    np.testing.assert_allclose(changed.observations.mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(changed.observations.std(axis=0), 1.0, atol=1e-3)
    for row in range(6):
        np.testing.assert_array_equal(
            transforms.observation(given_data.observations[row]), changed.observations[row]
        )
    assert given_data.next_observations is not None
    np.testing.assert_array_equal(
        transforms.observation(given_data.next_observations), changed.next_observations
    )
    still = Normal.of(np.full((4, 2), 7.0))
    np.testing.assert_array_equal(still([[7.0, 7.0]]), [[0.0, 0.0]])
    with pytest.raises(DeFlowError, match="4 columns"):
        transforms.observation(np.zeros(4))


def test_rewards_are_scaled_as_said() -> None:
    given_data = raw()
    assert reward_scale(given_data, "std") == pytest.approx(1 / np.arange(6.0).std())
    assert reward_scale(given_data, "range") == pytest.approx(1000 / (12 - 3))
    changed = Transforms(reward_scale=2.0, reward_shift=-1.0).apply(given_data)
    np.testing.assert_array_equal(changed.rewards, (np.arange(6.0) - 1) * 2)
    for by in ("std", "range"):
        with pytest.raises(DeFlowError, match="never vary"):
            reward_scale(raw(rewards=[1.0] * 6), by)  # type: ignore[arg-type]
    with pytest.raises(DeFlowError, match="above 0"):
        Transforms(reward_scale=0.0)


def test_transforms_survive_json() -> None:
    transforms = Transforms(
        Box((-1.0, 0.1), (2.0, 1 / 3)), Normal.of(raw().observations), 0.7, -1 / 7
    )
    assert Transforms.from_json(json.loads(json.dumps(transforms.to_json()))) == transforms
    assert Transforms.from_json(Transforms().to_json()) == Transforms()
    for wrong in ({"box": 3}, {"box": {"low": [0]}}, {"more": 1}, {"normal": {"mean": "a"}}):
        with pytest.raises(DeFlowError):
            Transforms.from_json(wrong)


def test_nothing_is_changed_where_nothing_is_asked(tmp_path: Path) -> None:
    file = logs.write_npz(tmp_path / "log.npz", logs.episodes())
    own = load_own(file)
    assert own.transforms == Transforms()
    assert own.environment is None
    assert own.dataset.fingerprint() == read_raw(file).dataset().fingerprint()


def test_bounds_are_given_or_taken_from_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logs.episodes()
    wide = [{**episode, "actions": 3.0 * episode["actions"]} for episode in log]
    file = logs.write_npz(tmp_path / "log.npz", wide)
    with pytest.raises(DeFlowError, match=r"must lie in \[-1, 1\]"):
        read_raw(file).dataset()
    known = load_own(file, bounds=Box((-3.0,), (3.0,)))
    reference = logs.flat(log)["actions"]
    np.testing.assert_allclose(known.dataset.actions[known.dataset.rows], reference, atol=2e-5)
    np.testing.assert_allclose(
        known.transforms.action_back(known.dataset.actions[known.dataset.rows]),
        3 * reference,
        atol=6e-5,
    )
    assert "true bounds" not in capsys.readouterr().err
    guessed = load_own(file)
    assert "true bounds" in " ".join(capsys.readouterr().err.split())
    assert guessed.transforms.box == Box.of(3.0 * reference)
    np.testing.assert_allclose(np.abs(guessed.dataset.actions).max(axis=0), 1.0, atol=2e-5)
    again = load_own(file, transforms=known.transforms)
    assert again.dataset.fingerprint() == known.dataset.fingerprint()


def test_a_file_that_declares_its_bounds_is_scaled_by_them(tmp_path: Path) -> None:
    box = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-2.0, -4], "high": [2.0, 4]}
    folder = logs.write_minari(tmp_path / "set", logs.episodes(), action_space=json.dumps(box))
    own = load_own(folder, normalize_observations=True, scale_rewards="std", shift_rewards=1.0)
    assert own.transforms.box == Box(*Bounds((-2.0, -4.0), (2.0, 4.0)))
    reference = logs.flat(logs.episodes())
    np.testing.assert_allclose(
        own.dataset.actions[own.dataset.rows] * [2, 4], reference["actions"], atol=1e-5
    )
    spread = reference["rewards"].std()
    np.testing.assert_allclose(
        own.dataset.rewards[own.dataset.rows], (reference["rewards"] + 1) / spread, rtol=1e-5
    )


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_choices_are_no_actions(shape: tuple[int, ...], tmp_path: Path) -> None:
    choices = np.asarray([0, 1, 2, 3, 0, 1]).reshape(shape)
    arrays = {"observations": np.eye(6), "rewards": np.arange(6.0), "terminals": np.arange(6) == 5}
    path = tmp_path / "log.npz"
    np.savez(path, actions=choices, **arrays)
    for bounds in (None, "data", Box((0.0,), (3.0,))):
        with pytest.raises(DeFlowError, match="discrete"):
            load_own(path, bounds=bounds)  # type: ignore[arg-type]
    for amounts in (choices.astype(np.float32).reshape(6, 1), np.repeat(choices, 2).reshape(6, 2)):
        np.savez(path, actions=amounts, **arrays)
        assert load_own(path).transforms.box == Box.of(amounts)


def test_nothing_is_made_of_no_rows(tmp_path: Path) -> None:
    arrays = {name: array[:0] for name, array in logs.flat(logs.episodes()).items()}
    np.savez(tmp_path / "log.npz", run=np.zeros(0, int), **arrays)
    with pytest.raises(DeFlowError, match="is empty: its observations have no rows"):
        load_own(tmp_path / "log.npz", ["episode=run"])
    with pytest.raises(DeFlowError, match="is empty: its observations have no rows"):
        load_own(tmp_path / "log.npz", scale_rewards="range")  # type: ignore[arg-type]


def test_the_same_number_in_two_precisions_is_normalised_to_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As observations in single and next observations in double precision are; and block by block
    as at once."""
    exact = np.random.default_rng(0).normal(3, 2, (100, 3))
    normal = Normal.of(exact)
    at_once = normal(exact)
    np.testing.assert_array_equal(normal(exact.astype(np.float32)), at_once)
    np.testing.assert_allclose(at_once.mean(0), 0, atol=1e-6)
    monkeypatch.setattr("deflow.data.transforms._ROWS", 7)
    np.testing.assert_array_equal(normal(exact), at_once)
    np.testing.assert_array_equal(normal(exact[0]), at_once[0])
