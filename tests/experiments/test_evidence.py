"""What the scripts that make evidence write is what the library reads."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deflow.agents.bc import BC
from deflow.core.errors import DeFlowError
from deflow.data.d4rl import load_d4rl, parse_d4rl
from deflow.data.own import load_own
from deflow.training.config import TrainConfig
from deflow.training.run_folder import RunFolder

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def lerobot() -> ModuleType:
    """The script, which imports another one as scripts do."""
    return importlib.import_module("benchmarks.lerobot")


def test_the_collected_maze_is_a_set_of_d4rl(lerobot: ModuleType, tmp_path: Path):
    lerobot.collect_maze(tmp_path / f"{lerobot.MAZE}.hdf5", 1500)
    data = load_d4rl(parse_d4rl(lerobot.MAZE), tmp_path, download=False)
    position = data.observations[:, :2]
    near = np.linalg.norm(position[data.next_rows] - (1, 1), axis=1) <= 0.5
    np.testing.assert_array_equal(data.rewards[data.rows], near)
    cells = np.unique(np.rint(position), axis=0)
    assert len(cells) == 7  # It has been everywhere.
    assert len(data.episode_ends) > 10
    assert (data.masks == 1).all()


def test_both_formats_hold_the_same_data(lerobot: ModuleType, tmp_path: Path):
    rng = np.random.default_rng(0)
    log = {
        "state": rng.normal(size=(60, 4)).astype(np.float32),
        "action": rng.uniform(-1, 1, (60, 2)).astype(np.float32),
        "reward": rng.normal(size=60).astype(np.float32),
        "recording": np.repeat([0, 1, 2], [30, 10, 20]),
    }
    lerobot.write_lerobot(log, tmp_path / "log")
    lerobot.write_parquet(log, tmp_path / "log.parquet")
    folder = load_own(tmp_path / "log", lerobot.COLUMNS["lerobot"]).dataset
    file = load_own(tmp_path / "log.parquet", lerobot.COLUMNS["parquet"]).dataset
    assert folder.fingerprint() == file.fingerprint()
    np.testing.assert_array_equal(folder.episode_ends, [29, 39, 59])
    np.testing.assert_array_equal(folder.observations[folder.rows], log["state"][folder.rows])


def test_an_interval_is_as_wide_as_fifty_episodes_leave_it(lerobot: ModuleType):
    table = importlib.import_module("benchmarks.learning_table")
    low, high = table.interval([0.0, 0.0, 0.0])
    assert low == 0
    assert 0.02 < high < 0.06
    low, high = table.interval([0.5])
    assert (low, high) == pytest.approx((0.5 - 0.135, 0.5 + 0.135), abs=0.01)
    wide = table.interval([0.2, 0.5, 0.8])
    assert wide[1] - wide[0] > high - low


def test_a_result_that_is_cut_short_leaves_the_old_one(
    lerobot: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    script = importlib.import_module("benchmarks.committed")
    out, whole = tmp_path / "results" / "out.json", Path.write_text
    script.write_result(out, {"agents": []})

    def cut(path: Path, text: str) -> None:
        whole(path, text[:5])
        raise OSError("no space is left")

    monkeypatch.setattr(Path, "write_text", cut)
    with pytest.raises(OSError, match="no space"):
        script.write_result(out, {"agents": ["bc"]})
    assert json.loads(out.read_text()) == {"agents": []}
    assert list(out.parent.iterdir()) == [out]


def test_what_was_committed_stays_beside_what_is_new(lerobot: ModuleType, tmp_path: Path):
    script = importlib.import_module("benchmarks.committed")

    def entry(name: str, success: float, episodes: int = 3) -> dict[str, Any]:
        data = {"name": "set", "episodes": episodes, "transitions": 30}
        found = {"name": name, "success": success, "provenance": {"dataset": data}}
        return {**found, "seeds": [0], "train_seconds": 1.0}

    out, order = tmp_path / "out.json", ("bc", "iql", "fql")
    assert script.gathered(out, [], order) == []
    script.write_result(out, {"agents": [entry("fql", 0.1), entry("bc", 0.2)]})
    found = script.gathered(out, [entry("iql", 0.3), entry("bc", 0.4)], order)
    assert [(each["name"], each["success"]) for each in found] == [
        ("bc", 0.4),
        ("iql", 0.3),
        ("fql", 0.1),
    ]
    with pytest.raises(DeFlowError, match="records of other data"):
        script.gathered(out, [entry("iql", 0.3, episodes=4)], order)


def trained(*seeds: int, success: float = 0.5, steps: int = 10) -> dict[str, Any]:
    """A record of one system, as a script gives it to be gathered."""
    data = {"name": "set", "episodes": 3, "transitions": 30}
    return {
        "name": "bc",
        "task": "toy",
        "schedule": "joint",
        "steps": steps,
        "settings": {"discount": 0.99},
        "seeds": list(seeds),
        "members": [{"member": f"seed{k}", "seed": k, "success": success} for k in seeds],
        "count": len(seeds),
        "frozen": [{"member": f"seed{seeds[0]}", "phase": "joint", "step": 1, "term": "loss"}],
        "curve": [{"member": f"seed{k}", "step": 10, "success": success} for k in seeds],
        "train_seconds": 7.0 * len(seeds),
        "provenance": {"dataset": data, "command": f"seeds {seeds}"},
    }


def test_seeds_that_were_trained_on_several_days_are_one_record(
    lerobot: ModuleType, tmp_path: Path
):
    script = importlib.import_module("benchmarks.committed")
    out = tmp_path / "out.json"
    days = [trained(1, success=0.2), trained(0, success=0.6), trained(2), trained(1, success=0.4)]
    for day in [*days, days[-1]]:  # What is reported twice counts once.
        (found,) = script.gathered(out, [day], ("bc",))
        script.write_result(out, {"agents": [found]})
    assert found["seeds"] == [0, 1, 2]
    assert [member["success"] for member in found["members"]] == [0.6, 0.4, 0.5]
    assert found["success"]["mean"] == pytest.approx(0.5)
    assert sorted(point["member"] for point in found["curve"]) == ["seed0", "seed1", "seed2"]
    assert sorted(entry["member"] for entry in found["frozen"]) == ["seed0", "seed1", "seed2"]
    assert found["train_seconds"] == 21
    assert [part["provenance"]["command"] for part in found["parts"]] == [
        "seeds (0,)",
        "seeds (1,)",
        "seeds (2,)",
    ]
    (whole,) = script.gathered(out, [trained(0, 1, 2)], ("bc",))
    assert whole == trained(0, 1, 2)


def test_seeds_are_neither_mixed_nor_lost(lerobot: ModuleType, tmp_path: Path):
    script = importlib.import_module("benchmarks.committed")
    out = tmp_path / "out.json"
    script.write_result(out, {"agents": [trained(0, 1)]})
    with pytest.raises(DeFlowError, match="has more seeds of bc than these"):
        script.gathered(out, [trained(0)], ("bc",))
    with pytest.raises(DeFlowError, match="other seeds of bc with other steps"):
        script.gathered(out, [trained(2, steps=20)], ("bc",))


def test_a_command_names_what_is_not_usual(lerobot: ModuleType, tmp_path: Path):
    script = importlib.import_module("benchmarks.committed")
    config = TrainConfig("toy", BC(), seeds=(1, 2), steps=500)
    RunFolder(tmp_path).write_json("config.json", config.to_json())
    usual = {"seeds": (0, 1), "steps": 500, "online_steps": 20}
    found = script.command_of("python x.py", RunFolder(tmp_path), usual)
    assert found == "python x.py --seeds 1 2 --online-steps 0"


def test_a_kept_estimate_is_of_the_data_that_are_there(
    lerobot: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    script = importlib.import_module("benchmarks.auto_delta")
    values = iter([0.1, 0.2])
    asked: list[Any] = []

    def estimated(dataset: Any) -> SimpleNamespace:
        asked.append(dataset)
        value = next(values)
        return SimpleNamespace(value=value, to_json=lambda: {"value": value})

    monkeypatch.setattr(script, "intrinsic_action_variance", estimated)
    found = []
    for data in ("a", "a", "b"):
        there = SimpleNamespace(fingerprint=lambda data=data: data)
        source = SimpleNamespace(load=lambda _, there=there: there)
        monkeypatch.setattr(script, "source", lambda _, source=source: source)
        found.append(script.estimate(script.CUBE, tmp_path, tmp_path / "out" / "iav.json"))
    assert [each["iav"]["value"] for each in found] == [0.1, 0.1, 0.2]
    assert len(asked) == 2


def test_a_kept_run_of_other_settings_is_refused(lerobot: ModuleType, tmp_path: Path):
    script = importlib.import_module("benchmarks.online")
    config = TrainConfig("toy", BC(), run_dir=tmp_path)
    assert script.settled(config) is None
    RunFolder(tmp_path).write_json("config.json", config.to_json())
    with pytest.raises(DeFlowError, match="it differs in steps"):
        script.settled(replace(config, steps=5))


def test_published_rows_are_those_of_the_tables(shared: Path):
    sets = importlib.import_module("benchmarks.d4rl_sets")
    table = json.loads((shared / "reference" / "paper_tables.json").read_text())["table7"]
    rows = {row["task"]: row["results"] for row in table}
    columns = {"bc": "BC", "iql": "IQL", "fql": "FQL", "deflow": "DeFlow"}
    for task, here in sets.PUBLISHED.items():
        legible = {
            name: (cell["mean"], cell["std"])
            for name, column in columns.items()
            if (cell := rows.get(task, {}).get(column)) and not cell["uncertain"]
        }
        assert here == legible
