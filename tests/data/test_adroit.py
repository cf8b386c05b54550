"""Adroit's sets made here: sampled as D4RL sampled them, in its schema, the same every time."""

from __future__ import annotations

import os
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deflow.core.errors import DeFlowError
from deflow.core.files import sha256
from deflow.data.adroit import EXPERTS, play_expert, replay_door_human, roll_expert
from deflow.data.d4rl import load_d4rl, normalized_score, parse_d4rl
from deflow.data.folder import sole_maker
from deflow.data.hdf5 import read_hdf5
from deflow.data.provenance import check_files, provenance_file, read_json
from deflow.data.readers.dapg import Expert
from deflow.envs.d4rl import make_d4rl

pytest.importorskip("gymnasium_robotics")

SCHEMA = {"observations", "actions", "rewards", "terminals", "timeouts"}
SCHEMA |= {"infos/qpos", "infos/qvel"}
NOISE = {"infos/action_mean", "infos/action_log_std"}


def weights(obs: int = 45, act: int = 24, hidden: int = 8) -> dict[str, Any]:
    """An expert that knows nothing."""
    rng = np.random.default_rng(0)
    sizes = (obs, hidden, hidden, act)
    arrays = {}
    for index, (width, out) in enumerate(pairwise(sizes)):
        arrays[f"w{index}"] = 0.3 * rng.normal(size=(out, width))
        arrays[f"b{index}"] = 0.3 * rng.normal(size=out)
    shapes = {"in_shift": obs, "in_scale": obs, "out_shift": act, "out_scale": act, "log_std": act}
    for name, width in shapes.items():
        arrays[name] = rng.uniform(0.5, 1.5, width) - 2.0 * (name == "log_std")
    return arrays


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    np.savez(tmp_path / "policy.npz", **weights())
    return tmp_path / "policy.npz"


def test_the_experts_mean_is_its_networks(policy: Path) -> None:
    a, expert = weights(), Expert.read(policy)
    assert expert.widths == (45, 24)
    x = np.random.default_rng(1).normal(size=45)
    hidden = np.tanh(a["w0"] @ ((x - a["in_shift"]) / a["in_scale"]) + a["b0"])
    last = a["w2"] @ np.tanh(a["w1"] @ hidden + a["b1"]) + a["b2"]
    expected = last * a["out_scale"] + a["out_shift"]
    np.testing.assert_allclose(expert.mean(x), expected, rtol=1e-5, atol=1e-5)


def test_actions_are_sampled_around_the_mean_and_clipped(policy: Path) -> None:
    env, expert = make_d4rl("pen-expert-v1"), Expert.read(policy)
    parts = [play_expert(env, expert, 0, index) for index in range(4)]
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    mean, log_std = joined["infos/action_mean"], joined["infos/action_log_std"]
    seen = [expert.mean(row) for row in joined["observations"]]
    np.testing.assert_allclose(seen, mean, atol=1e-3)
    assert np.abs(joined["actions"]).max() <= 1
    inside = np.abs(joined["actions"]) < 1
    noise = ((joined["actions"] - mean) / np.exp(log_std))[inside & (np.abs(mean) < 0.1)]
    assert len(noise) > 50
    assert 0.7 < noise.std() < 1.2
    again = play_expert(env, expert, 0, 1)  # whatever was played before
    for key, column in again.items():
        np.testing.assert_array_equal(column, parts[1][key])
    assert (play_expert(env, expert, 1, 1)["actions"][0] != again["actions"][0]).any()


def test_a_set_is_in_the_official_schema_and_the_same_every_time(
    policy: Path, tmp_path: Path
) -> None:
    name = "pen-expert-v1"
    made = [
        roll_expert(name, policy, tmp_path / folder, 3, 5, make_env=make_d4rl)
        for folder in ("one", "two")
    ]
    assert sha256(made[0]) == sha256(made[1])
    arrays = read_hdf5(made[0])
    assert arrays.keys() == SCHEMA | NOISE | {"infos/desired_orien"}
    assert all(len(array) == len(arrays["rewards"]) for array in arrays.values())
    assert arrays["observations"].dtype == arrays["infos/qpos"].dtype == np.float32
    assert arrays["terminals"].dtype == arrays["timeouts"].dtype == np.bool_
    ends = arrays["terminals"] | arrays["timeouts"]
    assert ends.sum() == 3
    assert ends[-1]
    assert not (arrays["terminals"] & arrays["timeouts"]).any()
    data = load_d4rl(parse_d4rl(name), tmp_path / "one", download=False)
    assert 1 <= len(data.episode_ends) <= 3

    kept = read_json(provenance_file(made[0]))
    assert kept["settings"]["episodes"] == 3
    assert kept["settings"]["policy_sha256"] == sha256(policy)
    assert check_files(made[0], full=True)
    written = made[0].stat().st_mtime_ns
    roll_expert(name, policy, tmp_path / "one", 3, 5, make_env=make_d4rl)
    assert made[0].stat().st_mtime_ns == written
    with pytest.raises(DeFlowError, match="made with other settings"):
        roll_expert(name, policy, tmp_path / "one", 3, 6, make_env=make_d4rl)


def test_a_kill_before_the_last_file_is_written_leaves_what_the_same_command_makes_whole(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = partial(roll_expert, "pen-expert-v1", policy, tmp_path, 1, make_env=make_d4rl)
    moves: list[str] = []

    def killed(source: Path, target: Path) -> None:
        moves.append(target.name)
        if len(moves) == 2:
            raise KeyboardInterrupt
        Path(source).rename(target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        make()
    monkeypatch.undo()
    target = make()
    assert check_files(target, full=True)
    assert make() == target


def test_two_processes_do_not_make_the_same_set(policy: Path, tmp_path: Path) -> None:
    with sole_maker(tmp_path, "pen-expert-v1"), pytest.raises(DeFlowError, match="is making pen"):
        roll_expert("pen-expert-v1", policy, tmp_path, 1, make_env=make_d4rl)


def forbidden(name: str) -> Any:
    raise AssertionError(f"{name} was made although the mistake was plain before")


@pytest.mark.parametrize(
    ("dataset", "options", "change", "words"),
    [
        ("pen-human-v1", {}, {}, "those that can are pen-expert-v1"),
        ("pen-expert-v1", {"episodes": 0}, {}, "--episodes is 0"),
        ("pen-expert-v1", {"seed": -1}, {}, "--seed is -1"),
        ("pen-expert-v1", {}, {"w1": np.zeros((8, 9))}, "do not fit together"),
        ("pen-expert-v1", {}, {"b2": np.full(24, np.nan)}, "must be finite"),
        ("pen-expert-v1", {}, {"w0": np.array(["a"])}, "real numbers"),
        ("pen-expert-v1", {}, {"log_std": None}, "lacks log_std"),
    ],
)
def test_a_mistake_is_said_before_any_work(
    dataset: str, options: dict[str, int], change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    arrays = {key: value for key, value in {**weights(), **change}.items() if value is not None}
    np.savez(tmp_path / "policy.npz", **arrays)
    settings = {"episodes": 2, "seed": 0, **options}
    with pytest.raises(DeFlowError, match=words):
        roll_expert(
            dataset, tmp_path / "policy.npz", tmp_path / "sets", **settings, make_env=forbidden
        )
    assert not (tmp_path / "sets").exists()


def test_another_tasks_expert_is_refused(policy: Path, tmp_path: Path) -> None:
    with pytest.raises(DeFlowError, match=r"45 observations and 24 actions, and door-expert-v1"):
        roll_expert("door-expert-v1", policy, tmp_path / "sets", 2, 0, make_env=make_d4rl)
    assert not (tmp_path / "sets").exists()


def test_demonstrations_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    arrays = {
        "lengths": np.array([3, 2]),
        "actions": np.zeros((6, 28)),
        "init_qpos": np.zeros((2, 30)),
        "init_qvel": np.zeros((2, 30)),
        "init_door_body_pos": np.zeros((2, 3)),
    }
    np.savez(tmp_path / "demos.npz", **arrays)
    with pytest.raises(DeFlowError, match="no file of door demonstrations"):
        replay_door_human(tmp_path / "demos.npz", tmp_path / "sets", make_env=forbidden)
    assert not (tmp_path / "sets").exists()


@pytest.mark.parametrize("dataset", EXPERTS)
def test_the_original_experts_are_experts_here(dataset: str, shared: Path) -> None:
    expert = Expert.read(shared / f"data/dapg/policy_{dataset.split('-')[0]}.npz")
    env = make_d4rl(dataset)
    returns = [play_expert(env, expert, 0, index)["rewards"].sum() for index in range(4)]
    assert 50 < normalized_score(dataset, float(np.mean(returns))) < 180


def test_the_human_demonstrations_replay(shared: Path, tmp_path: Path) -> None:
    with np.load(shared / "data/dapg/door_human_demos.npz") as archive:
        demos = dict(archive)
    count, rows = 4, int(demos["lengths"][:4].sum())
    few = {
        key: value[:rows] if key in ("actions", "observations", "rewards") else value[:count]
        for key, value in demos.items()
    }
    np.savez(tmp_path / "few.npz", **few)
    target = replay_door_human(tmp_path / "few.npz", tmp_path / "sets", make_env=make_d4rl)
    arrays = read_hdf5(target)
    assert arrays.keys() == SCHEMA | {"infos/door_body_pos"}
    np.testing.assert_array_equal(np.flatnonzero(arrays["timeouts"]) + 1, np.cumsum(few["lengths"]))
    assert not arrays["terminals"].any()
    np.testing.assert_allclose(arrays["actions"], np.clip(few["actions"], -1, 1), atol=1e-6)
    # The recording was made on another MuJoCo; what is seen and rewarded is nearly the same.
    assert np.median(np.abs(arrays["rewards"] - few["rewards"])) < 2e-3
    assert np.median(np.abs(arrays["observations"] - few["observations"])) < 5e-3
    splits = np.cumsum(few["lengths"])[:-1]
    for ours, theirs in zip(
        np.split(arrays["rewards"], splits), np.split(few["rewards"], splits), strict=True
    ):
        np.testing.assert_allclose(
            normalized_score("door-human-v1", float(ours.sum())),
            normalized_score("door-human-v1", float(theirs.sum())),
            atol=8,
        )
    data = load_d4rl(parse_d4rl("door-human-v1"), tmp_path / "sets", download=False)
    assert (data.transitions, len(data.episode_ends)) == (rows - count, count)
