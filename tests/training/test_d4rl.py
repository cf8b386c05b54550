"""Every domain of D4RL from a file in the official schema to a score in its points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import deflow
from deflow.data.d4rl import normalized_score
from deflow.envs.d4rl import make_d4rl

h5py = pytest.importorskip("h5py")
pytest.importorskip("gymnasium_robotics")

NAMES = ("antmaze-umaze-v2", "pen-expert-v1", "hopper-medium-v2", "maze2d-umaze-v1")


def collect(name: str, folder: Path, steps: int = 120) -> None:
    """Random steps in the environment, written as D4RL writes them."""
    env = make_d4rl(name)
    env.action_space.seed(0)
    columns: dict[str, list[object]] = {key: [] for key in KEYS}
    observation, _ = env.reset(seed=0)
    for step in range(steps):
        action = env.action_space.sample()
        after, reward, ended, cut, _ = env.step(action)
        last = cut or step % 40 == 39
        row = (observation, action, reward, ended, last and not ended)
        for key, value in zip(KEYS, row, strict=True):
            columns[key].append(value)
        observation = env.reset(seed=step)[0] if ended or last else after
    with h5py.File(folder / f"{name}.hdf5", "w") as file:
        for key, values in columns.items():
            file[key] = np.asarray(values)


KEYS = ("observations", "actions", "rewards", "terminals", "timeouts")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_in_the_official_schema_trains_and_is_scored(name: str, tmp_path: Path):
    collect(name, tmp_path)
    run = deflow.train(
        name,
        "bc",
        settings={"hidden": (16,), "batch_size": 16},
        steps=10,
        chunk=10,
        eval_episodes=1,
        workers=1,
        data_dir=tmp_path,
        run_dir=tmp_path / "run",
    )
    (record,) = run.read_lines(run.evaluations)
    assert record["points"] == pytest.approx(normalized_score(name, record["return"]))
    member = run.read_json("summary.json")["members"][0]
    assert member["points"] == pytest.approx(record["points"])
