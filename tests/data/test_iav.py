"""The IAV where it is known: noise of known variance, copies of states, two trajectories."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data import logs

from deflow.cli import main
from deflow.core.errors import DeFlowError
from deflow.data import iav
from deflow.data.dataset import Dataset
from deflow.data.iav import choices_table, intrinsic_action_variance, nearest
from deflow.data.own import load_own
from deflow.data.states import load_states
from deflow.data.transforms import Box


def dataset(states: Any, actions: Any, lengths: Any = None) -> Dataset:
    """Every row a transition."""
    states = np.asarray(states, np.float32)
    return Dataset.from_arrays(
        observations=states,
        actions=actions,
        rewards=np.zeros(len(states)),
        terminals=np.zeros(len(states), bool),
        lengths=lengths,
        next_observations=states,
        name="made",
    )


# Noise of known variance -----------------------------------------------------------------------

NOISE, ROWS = 0.1, 20_000


@pytest.fixture(scope="module")
def noisy() -> Dataset:
    """Actions are a known function of a state in [0, 1] plus noise; states so dense that five
    neighbours lie within 0.0005 of each other. Fifty trajectories, through states at random."""
    rng = np.random.default_rng(0)
    states = rng.uniform(size=(ROWS, 1))
    clean = np.concatenate([0.5 * states, 0.3 * np.sin(3 * states)], axis=1)
    actions = np.clip(clean + NOISE * rng.standard_normal((ROWS, 2)), -1, 1)
    return dataset(states, actions, lengths=[ROWS // 50] * 50)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("scale", ["raw", "standard"])
def test_the_noise_of_the_actions_is_found(
    noisy: Dataset, own: bool, same: bool, unbiased: bool, scale: Any
):
    found = intrinsic_action_variance(
        noisy, include_self=own, same_trajectory=same, unbiased=unbiased, scale=scale, queries=4000
    )
    expected = NOISE**2 * (1 if unbiased else 4 / 5)
    assert found.value == pytest.approx(expected, rel=0.04)
    assert found.interval[0] < found.value < found.interval[1]
    assert found.queries == 4000


def test_intervals_hold_the_mean_over_all_states_as_often_as_they_say(noisy: Dataset):
    part = replace(noisy, rows=noisy.rows[:2000], next_rows=noisy.next_rows[:2000])
    everything = intrinsic_action_variance(part, queries=10**6)
    assert everything.queries == 2000
    held, few = [], []
    for seed in range(60):
        found = intrinsic_action_variance(part, queries=200, seed=seed)
        low, high = found.interval
        held.append(low < everything.value < high)
        few.append(found.value)
    assert np.mean(held) >= 0.88
    assert len(set(few)) == 60


def test_the_seed_chooses_the_states(noisy: Dataset):
    one, same, other = (intrinsic_action_variance(noisy, queries=50, seed=s) for s in (1, 1, 2))
    assert one == same
    assert one.value != other.value


# Copies and trajectories -------------------------------------------------------------------------


def test_copies_of_a_state_are_neighbours_of_each_other():
    """Five copies of each of 40 states, far apart: the variance is that of the copies' actions."""
    rng = np.random.default_rng(1)
    actions = rng.uniform(-0.9, 0.9, size=(40, 5, 3)).astype(np.float32)
    states = np.repeat(rng.uniform(-50, 50, (40, 2)).astype(np.float32), 5, axis=0)
    data = dataset(states, actions.reshape(200, 3))
    for unbiased in (False, True):
        found = intrinsic_action_variance(data, unbiased=unbiased)
        expected = actions.astype(np.float64).var(axis=1, ddof=int(unbiased)).mean()
        assert found.value == pytest.approx(expected, rel=1e-6)
    others = [np.delete(actions, i, axis=1).astype(np.float64).var(axis=1) for i in range(5)]
    found = intrinsic_action_variance(data, neighbours=4, include_self=False)
    assert found.value == pytest.approx(np.mean(others), rel=1e-6)


def test_neighbours_of_ones_own_trajectory_may_be_left_out():
    """Two trajectories through the same states, with opposite actions."""
    states = np.tile(np.arange(100.0)[:, None], (2, 1))
    actions = np.repeat([[0.5], [-0.5]], 100, axis=0)
    data = dataset(states, actions, lengths=[100, 100])

    def value(**choices: Any) -> float:
        return intrinsic_action_variance(data, **choices).value

    assert value(same_trajectory=False, include_self=False) == 0
    # The state's own action against four of the opposite one: 1/5 x 4/5 of a difference of 1.
    assert value(same_trajectory=False) == pytest.approx(0.16)
    # In the middle: itself, its copy, the two before and after it, of which two are its own.
    assert 0.23 < value() < 0.25


def test_distances_are_right_far_from_the_origin():
    """States that differ by single steps of float32: a product of matrices would see no order."""
    step = 2.0**-10
    states = 8000 + step * np.arange(60.0)[:, None] * np.ones((1, 3))
    actions = np.linspace(-0.9, 0.9, 60)[:, None]
    found = intrinsic_action_variance(dataset(states, actions), neighbours=3)
    # Every state has one neighbour on either side; those at the ends have two on one.
    gap = 1.8 / 59
    assert found.value == pytest.approx(gap**2 * 2 / 3, rel=1e-4)


def test_the_scale_of_a_column_matters_unless_it_is_standardised():
    rng = np.random.default_rng(2)
    states = rng.uniform(-1, 1, (3000, 2))
    actions = np.clip(0.9 * states[:, :1], -1, 1)
    plain, wide = dataset(states, actions), dataset(states * [1, 1000], actions)
    assert intrinsic_action_variance(wide).value > 10 * intrinsic_action_variance(plain).value, (
        "the column that the action follows no longer counts"
    )
    standard = [intrinsic_action_variance(d, scale="standard").value for d in (plain, wide)]
    assert standard[0] == pytest.approx(standard[1], rel=0.01)
    still = dataset(np.concatenate([states, np.ones((3000, 1))], axis=1), actions)
    assert intrinsic_action_variance(still, scale="standard").value == pytest.approx(
        standard[0], rel=0.01
    )


# Exactness -------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(7, 2, 3), (16, 4, 3), (40, 7, 6), (33, 33, 2)]),
    st.integers(1, 4),
)
def test_neighbours_are_those_that_a_plain_search_finds(
    seed: int, sizes: tuple[int, int, int], count: int
):
    """Blocks of rows and of queries, whole and broken ones, change nothing."""
    rows, queries, block = sizes
    rng = np.random.default_rng(seed)
    # Few levels, so that many distances are equal.
    points = rng.integers(0, 3, (rows, 3)).astype(np.float32)
    trajectory = np.sort(rng.integers(0, 3, rows))
    trajectory[:2], trajectory[-1] = 0, 2
    asked = np.sort(rng.choice(rows, queries, replace=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iav, "BLOCK_ROWS", block + 2)
        patch.setattr(iav, "BLOCK_QUERIES", block)
        found = nearest(points, trajectory, asked, count, [True, False])
    for kind, near in found.items():
        for own, its in zip(asked, near, strict=True):
            squared = np.square(points[own] - points).sum(-1)
            squared[own] = np.inf
            if not kind:
                squared[trajectory == trajectory[own]] = np.inf
            reachable = min(count, int(np.isfinite(squared).sum()))
            expected = np.argsort(squared, kind="stable")[:reachable]
            np.testing.assert_array_equal(its[:reachable], expected)


def test_the_table_holds_every_choice_and_the_numbers_of_single_calls(noisy: Dataset):
    table = choices_table(noisy, queries=300)
    assert len({found.choices for found in table}) == len(table) == 16
    for found in table:
        choices = asdict(found.choices)
        assert intrinsic_action_variance(noisy, queries=300, **choices) == found


# Refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "options", "said"),
    [
        ([6], {"neighbours": 8}, "6 transitions, too few for 7"),
        ([4, 2], {"same_trajectory": False}, "2 transitions outside its longest"),
        ([6], {"neighbours": 1}, "neighbours must be at least 2"),
        ([6], {"queries": 1}, "queries must be at least 2"),
        ([6], {"scale": "log"}, "scale must be raw or standard"),
    ],
)
def test_what_cannot_be_estimated_is_said(lengths: list[int], options: Any, said: str):
    data = dataset(np.arange(6.0)[:, None], np.zeros((6, 1)), lengths)
    with pytest.raises(DeFlowError, match=said):
        intrinsic_action_variance(data, **options)


def test_pictures_are_refused():
    data = dataset(np.arange(6.0)[:, None], np.zeros((6, 1)))
    frames = replace(data, observations=np.zeros((6, 8, 8, 3), np.uint8))
    with pytest.raises(DeFlowError, match="pictures"):
        intrinsic_action_variance(frames)


# The command -----------------------------------------------------------------------------------


def test_the_command_says_what_the_function_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rng = np.random.default_rng(0)
    arrays = {"observations": rng.normal(size=(80, 6)), "qpos": np.zeros((80, 3))}
    arrays |= {"actions": rng.uniform(-1, 1, (80, 5)), "terminals": np.arange(80) % 40 == 39}
    for split in ("", "-val"):
        np.savez(tmp_path / f"scene-play-v0{split}.npz", allow_pickle=False, **arrays)
    words = ["data", "iav", "scene-play-v0", "--data-dir", str(tmp_path), "--queries", "30"]
    assert main.run([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dataset"] == "scene-play-v0"
    assert found["value"] > 0
    assert found["delta"] == {"manipulation": 0.1 * found["value"], "navigation": found["value"]}
    assert main.run([*words, "--json", "--all-choices"]) == 0
    table = json.loads(capsys.readouterr().out)["choices"]
    assert [r["value"] for r in table if r["choices"] == found["choices"]] == [found["value"]]
    assert main.run([*words, "--unbiased"]) == 0
    assert "k - 1" in capsys.readouterr().out


def test_the_command_reads_ones_own_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(0)
    arrays = {"observations": rng.normal(size=(50, 2)), "actions": rng.uniform(-1, 1, (50, 2))}
    flags = {"rewards": np.zeros(50), "terminals": np.arange(50) % 10 == 9}
    np.savez(tmp_path / "mine.npz", allow_pickle=False, **arrays, **flags)
    assert main.run(["data", "iav", str(tmp_path / "mine.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["queries"] == 50


@pytest.mark.parametrize("given", [(), ("terminals",), ("rewards",), ("terminals", "rewards")])
@pytest.mark.parametrize("kind", ["npz", "hdf5", "grouped", "parquet", "lerobot"])
def test_the_command_needs_no_rewards_and_no_terminations(
    kind: str, given: tuple[str, ...], tmp_path: Path
):
    pytest.importorskip("h5py")
    pytest.importorskip("pyarrow")
    import h5py
    import pyarrow.parquet as pq

    log = logs.episodes()
    flat = logs.flat(log)
    absent = {"rewards", "terminals"} - {*given}
    path, columns = tmp_path / f"mine.{kind}", ["episode=run"]
    lengths = [len(episode["actions"]) for episode in log]
    kept = {k: v for k, v in flat.items() if k not in absent}
    if kind == "npz":
        np.savez(path, allow_pickle=False, **kept, run=np.repeat(np.arange(len(log)), lengths))
    elif kind == "hdf5":
        with h5py.File(path, "w") as file:
            for name, array in kept.items():
                file[name] = array
            file["run"] = np.repeat(np.arange(len(log)), lengths)
    elif kind == "grouped":
        path, columns = tmp_path / "mine.h5", []
        names = {"observations": 0, "actions": 0, "rewards": "rewards", "terminations": "terminals"}
        with h5py.File(path, "w") as file:
            for index, episode in enumerate(log):
                for name in (name for name, role in names.items() if role not in absent):
                    file[f"demo_{index}/{name}"] = episode[name]
    elif kind == "parquet":
        columns = ["episode=episode"]
        pq.write_table(logs.table(log).drop_columns(sorted(absent)), path)
    else:
        path, columns = logs.write_lerobot(tmp_path / "robot", log), []
    found = load_states(str(path), columns=columns)
    ended = "terminals" in given and kind != "lerobot"
    assert len(found.episode_ends) == len(log)
    assert (found.masks == 0).sum() == (flat["terminals"].sum() if ended else 0)
    if "terminals" in given:
        roles = ["rewards=zero", "terminals=none"] if kind == "lerobot" else ["rewards=zero"]
        whole = load_own(path, [*columns, *roles]).dataset
        assert found.fingerprint() == whole.fingerprint()


def test_a_set_in_ogbenchs_layout_is_the_same_by_its_path(small_sets: Path):
    name = "cube-single-play-v0"
    by_path = load_states(str(small_sets / f"{name}.npz"))
    assert by_path.fingerprint() == load_states(name, small_sets).fingerprint()


def test_a_minari_set_is_read_as_it_is(tmp_path: Path):
    pytest.importorskip("h5py")
    log = logs.episodes()
    folder = logs.write_minari(tmp_path / "set", log)
    assert load_states(str(folder)).fingerprint() == logs.expected(log)


def test_the_units_are_those_that_delta_auto_uses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rng = np.random.default_rng(0)
    states = rng.normal(size=(60, 2)) * [1.0, 50.0]
    arrays = {"observations": states, "actions": rng.uniform(-0.9, 0.9, (60, 2))}
    path = tmp_path / "mine.npz"
    np.savez(path, allow_pickle=False, **arrays)

    def value(*words: str) -> float:
        assert main.run(["data", "iav", str(path), "--json", *words]) == 0
        return float(json.loads(capsys.readouterr().out)["value"])

    plain = value()
    assert value("--action-bounds", "-2", "2") == pytest.approx(plain / 4, rel=1e-4)
    sides = ("--action-bounds", "-2", "-4", "2", "4")
    assert plain / 16 < value(*sides) < plain / 4
    own = load_own(
        path,
        ["rewards=zero", "terminals=none"],
        bounds=Box((-2.0,), (2.0,)),
        normalize_observations=True,
    )
    expected = intrinsic_action_variance(own.dataset).value
    both = value("--action-bounds", "-2", "2", "--normalize-observations")
    assert both == pytest.approx(expected)
    assert both != pytest.approx(plain / 4, rel=1e-3)
