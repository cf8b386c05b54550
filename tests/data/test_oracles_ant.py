"""OGBench's ant mazes made here: the recipe, the expert's file, the set, and the run it comes from.

The expert is a stand-in: a network of the exported form with random numbers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import ogbench
import pytest
from tests.data.test_generate import both

from deflow.agents.sac import SAC
from deflow.behavior.squashed import Squashed
from deflow.cli import main
from deflow.core.errors import DeFlowError
from deflow.core.types import Spec
from deflow.data.columns_map import Columns
from deflow.data.generate import expert_file, generate
from deflow.data.names import parse_task
from deflow.data.oracles_ant import WIDTHS, AntCollector, AntExpert
from deflow.data.provenance import provenance_file
from deflow.data.recipes import recipe_for
from deflow.data.transforms import UNCHANGED
from deflow.data.workers import play_episode
from deflow.envs.make import WALKING_ANT, EnvSpec
from deflow.training import checkpoint
from deflow.training.config import TrainConfig
from deflow.training.family import Family, members_of
from deflow.training.policy import load_policy
from deflow.training.run_folder import RunFolder

MEDIUM, TELEPORT = "antmaze-medium-navigate-v0", "antmaze-teleport-navigate-v0"
STEPS = 40


def policy(seed: int = 0) -> Squashed:
    return Squashed(*WIDTHS, (16, 16), key=jax.random.key(seed))


def stranger(seed: int = 0) -> AntExpert:
    """The stand-in, as an export would make it."""
    *hidden, head = policy(seed).net.layers
    layers = [(np.asarray(layer.weight), np.asarray(layer.bias)) for layer in hidden]
    means = (np.asarray(head.weight)[:, :8], np.asarray(head.bias)[:8])
    return AntExpert((*layers, means), {"run": "nobody", "checkpoint": "step-000000001"})


class Puppet(AntExpert):
    """Does as it is told, whatever it sees."""

    def __init__(self, does: Callable[[np.ndarray], Any]) -> None:
        super().__init__(stranger().layers, {})
        object.__setattr__(self, "does", does)

    def __call__(self, observation: np.ndarray) -> Any:
        return self.does(observation)  # type: ignore[attr-defined]


def played(dataset: str, steps: int, does: Callable[[np.ndarray], Any]) -> dict[str, np.ndarray]:
    recipe = dataclasses.replace(recipe_for(dataset), steps=steps)
    return dict(play_episode(AntCollector(recipe, Puppet(does)), dataset, 0, 0))


# The recipe ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maze", "episodes", "steps"),
    [("medium", 1000, 1001), ("large", 1000, 1001), ("giant", 500, 2001), ("teleport", 1000, 1001)],
)
def test_the_official_amounts(maze: str, episodes: int, steps: int) -> None:
    recipe = recipe_for(f"antmaze-{maze}-navigate-v0")
    assert (recipe.episodes, recipe.steps, recipe.needs_expert) == (episodes, steps, True)


def test_the_expert_sees_the_ant_without_its_place_and_where_the_next_cell_lies() -> None:
    seen: list[np.ndarray] = []
    episode = played(MEDIUM, 200, lambda ob: seen.append(ob) or np.zeros(8))
    told = np.array(seen)
    np.testing.assert_allclose(told[:, :27], episode["observations"][:, 2:], atol=1e-6)
    np.testing.assert_array_equal(episode["qpos"], episode["observations"][:, :15])
    np.testing.assert_array_equal(episode["qvel"], episode["observations"][:, 15:])
    maze = np.array(recipe_maze(MEDIUM))
    for (x, y), direction in zip(episode["qpos"][:, :2].astype(float), told[:, 27:], strict=True):
        row, column = int((y + 6) / 4), int((x + 6) / 4)
        sides = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
        free = [(row + i, column + j) for i, j in sides if maze[row + i, column + j] == 0]
        ways = np.array([(4 * j - 4 - x, 4 * i - 4 - y) for i, j in free])
        ways /= np.linalg.norm(ways, axis=1, keepdims=True)
        assert np.min(np.abs(ways - direction).max(axis=1)) < 1e-4


@pytest.mark.parametrize("dataset", [MEDIUM, "antmaze-large-navigate-v0"])
def test_who_goes_where_the_direction_points_reaches_one_goal_after_another(dataset: str) -> None:
    """It strays a little on its way: goals lie up to a metre off the middles that it is led to."""
    recipe = dataclasses.replace(recipe_for(dataset), steps=800)
    collector = AntCollector(recipe, Puppet(lambda ob: carried(ob)))
    maze, goals, reached = collector._maze, [], []
    set_goal, stray = maze.set_goal, np.random.default_rng(0)

    def carried(ob: np.ndarray) -> np.ndarray:
        maze.set_xy(maze.get_xy() + 0.4 * ob[27:] + stray.normal(0, 0.3, 2))
        return np.zeros(8)

    def watched(goal_ij: Any = None, goal_xy: Any = None) -> None:
        if goal_ij is not None:
            reached.append(np.linalg.norm(maze.get_xy() - maze.cur_goal_xy))
            goals.append((int(goal_ij[0]), int(goal_ij[1])))
        set_goal(goal_ij, goal_xy)

    maze.set_goal = watched
    play_episode(collector, dataset, 0, 0)
    assert len(goals) >= 3
    assert max(reached) <= 0.5
    assert set(goals) <= vertices(recipe_maze(dataset))
    assert len(set(goals)) > 1


def test_actions_are_the_mean_with_noise_clipped_to_the_box() -> None:
    still = played(MEDIUM, 500, lambda ob: np.zeros(8))["actions"]
    assert abs(still.mean()) < 3 * 0.2 / np.sqrt(still.size)
    assert abs(still.std() - 0.2) < 3 * 0.2 / np.sqrt(2 * still.size)
    torn = played(MEDIUM, 500, lambda ob: np.ones(8))["actions"]
    assert torn.max() == 1
    assert abs((torn == 1).mean() - 0.5) < 3 * 0.5 / np.sqrt(torn.size)


@pytest.mark.parametrize("dataset", [MEDIUM, TELEPORT])
def test_an_episode_is_the_same_whatever_was_played_before(dataset: str) -> None:
    recipe = dataclasses.replace(recipe_for(dataset), steps=100)
    up, down = (
        {index: play_episode(collector, dataset, 0, index) for index in order}
        for collector, order in (
            (AntCollector(recipe, stranger()), (0, 1, 2)),
            (AntCollector(recipe, stranger()), (2, 1, 0)),
        )
    )
    for index in range(3):
        for key, array in up[index].items():
            assert array.tobytes() == down[index][key].tobytes(), key
    assert not np.array_equal(up[0]["observations"], up[1]["observations"])


# The expert ----------------------------------------------------------------------------------


def test_numpy_says_what_the_network_says(tmp_path: Path) -> None:
    seen = np.random.default_rng(0).standard_normal((100, 29)) * 3
    loud = dataclasses.replace(
        stranger(), layers=tuple((w * 3, b + 0.1) for w, b in stranger().layers)
    )
    net = policy()
    for index, (weight, bias) in enumerate(loud.layers):
        layer = net.net.layers[index]
        wide = np.pad(weight, ((0, 0), (0, layer.weight.shape[1] - weight.shape[1])))
        long = np.pad(bias, (0, len(layer.bias) - len(bias)))
        object.__setattr__(layer, "weight", wide)
        object.__setattr__(layer, "bias", long)
    expected = np.asarray(net.mode(seen.astype(np.float32)))
    assert np.abs(expected).mean() > 0.1
    np.testing.assert_allclose(loud(seen), expected, atol=2e-6)
    np.testing.assert_allclose(loud(seen[0]), expected[0], atol=2e-6)

    loud.write(tmp_path / "expert.npz")
    again = AntExpert.read(tmp_path / "expert.npz")
    assert again.sha256() == loud.sha256() != stranger().sha256()
    assert again.source == loud.source
    np.testing.assert_array_equal(again(seen), loud(seen))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"b2": None}, "lacks b2"),
        ({"source": None}, "lacks source"),
        ({"source": np.array("{")}, "lacks a readable source"),
        ({"w0": np.zeros((27, 16), np.float32)}, "29 numbers"),
        ({"w1": np.zeros((15, 16), np.float32)}, "29 numbers"),
        ({"b2": np.zeros(9, np.float32)}, "29 numbers"),
        ({"b1": np.zeros((16, 1), np.float32)}, "29 numbers"),
        ({"w1": np.full((16, 16), np.nan)}, "w1"),
    ],
)
def test_a_file_that_is_no_expert_is_refused(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    stranger().write(tmp_path / "good.npz")
    with np.load(tmp_path / "good.npz") as good:
        arrays = {**good, **change}
    np.savez(tmp_path / "bad.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(DeFlowError, match=words):
        AntExpert.read(tmp_path / "bad.npz")


# The set -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ants")
    return generate(MEDIUM, episodes=3, data_dir=folder, steps=STEPS, expert=stranger())


def test_ogbench_and_we_read_the_set(small: Path) -> None:
    from deflow.data.ogbench import load_task

    task = "antmaze-medium-navigate-singletask-task1-v0"
    env, train, val = ogbench.make_env_and_datasets(
        task, dataset_path=str(small), compact_dataset=False, add_info=True
    )
    ours, held_out = load_task(parse_task(task), small.parent)
    for split, mine, episodes in ((train, ours, 3), (val, held_out, 1)):
        assert split["observations"].shape == (episodes * (STEPS - 1), 29)
        assert split["actions"].shape == (episodes * (STEPS - 1), 8)
        assert split["terminals"].sum() == episodes
        assert (split["qpos"].shape[1:], split["qvel"].shape[1:]) == ((15,), (14,))
        assert mine.transitions == len(split["observations"])
    assert env.observation_space.shape == (29,)
    with np.load(small) as raw:
        assert raw["terminals"].dtype == np.bool_
        assert {raw[key].dtype for key in raw.files if key != "terminals"} == {np.dtype("f4")}
        assert list(np.flatnonzero(raw["terminals"])) == [STEPS - 1, 2 * STEPS - 1, 3 * STEPS - 1]


def test_the_set_says_who_walked_and_keeps_the_expert(small: Path) -> None:
    made = json.loads(provenance_file(small).read_text())
    assert made["policy"] == stranger().source
    kept = AntExpert.read(expert_file(small))
    assert kept.sha256() == stranger().sha256() == made["settings"]["policy_sha256"]
    before = both(small)
    again = generate(MEDIUM, episodes=3, data_dir=small.parent, steps=STEPS, expert=kept)
    assert both(again) == before
    with pytest.raises(DeFlowError, match="policy_sha256"):
        generate(MEDIUM, episodes=3, data_dir=small.parent, steps=STEPS, expert=stranger(1))


def test_two_workers_make_the_same_files(small: Path, tmp_path: Path) -> None:
    two = generate(MEDIUM, episodes=3, workers=2, data_dir=tmp_path, steps=STEPS, expert=stranger())
    assert both(two) == both(small)
    assert provenance_file(two).read_bytes() == provenance_file(small).read_bytes()
    assert expert_file(two).read_bytes() == expert_file(small).read_bytes()


_KILLED = """
import sys
from pathlib import Path
from deflow.data.generate import generate
from deflow.data.oracles_ant import AntExpert
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    generate("antmaze-medium-navigate-v0", episodes=8, steps=200, data_dir=folder,
             expert=AntExpert.read(folder.parent / "expert.npz"))
"""


def test_a_killed_run_goes_on_with_the_same_expert_alone(tmp_path: Path) -> None:
    killed, script = tmp_path / "killed", tmp_path / "run.py"
    stranger().write(tmp_path / "expert.npz")
    script.write_text(_KILLED)
    source = Path(__file__).resolve().parents[2] / "src"
    run = subprocess.Popen(
        [sys.executable, str(script), str(killed)],
        env={**os.environ, "PYTHONPATH": str(source)},
        stderr=subprocess.DEVNULL,
    )
    partial = killed / f".{MEDIUM}.partial"
    end = time.monotonic() + 60
    while len(list(partial.glob("episode-*.npz"))) < 2:
        assert time.monotonic() < end
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not (killed / f"{MEDIUM}.npz").exists()
    settings: dict[str, Any] = {"episodes": 8, "steps": 200, "workers": 2}
    with pytest.raises(DeFlowError, match=r"unfinished set of other settings \(policy_sha256"):
        generate(MEDIUM, data_dir=killed, expert=stranger(1), **settings)
    resumed = generate(MEDIUM, data_dir=killed, expert=stranger(), **settings)
    whole = generate(MEDIUM, data_dir=tmp_path / "whole", expert=stranger(), **settings)
    assert both(resumed) == both(whole)
    assert not partial.exists()


@pytest.mark.parametrize(
    ("dataset", "expert", "words"),
    [
        (MEDIUM, None, "train one with `deflow train online-ant-xy-v0"),
        ("pointmaze-medium-navigate-v0", stranger(), "takes no --policy"),
        ("antmaze-medium-stitch-v0", stranger(), "only 'navigate' sets"),
        ("antmaze-medium-explore-v0", stranger(), "only 'navigate' sets"),
        ("humanoidmaze-medium-navigate-v0", stranger(), "millions of steps"),
        ("antsoccer-arena-navigate-v0", stranger(), "millions of steps"),
    ],
)
def test_what_cannot_be_made_is_refused_and_nothing_written(
    dataset: str, expert: AntExpert | None, words: str, tmp_path: Path
) -> None:
    with pytest.raises(DeFlowError, match=words):
        generate(dataset, data_dir=tmp_path, expert=expert)
    assert not list(tmp_path.iterdir())


# The run -------------------------------------------------------------------------------------


def sac_run(path: Path, task: str = WALKING_ANT, **settings: Any) -> Path:
    """The folder of a run of SAC that has learnt nothing yet."""
    agent = SAC(hidden=(16, 16), actor_layer_norm=settings.pop("actor_layer_norm", False))
    config = TrainConfig(task, agent, online_steps=10, **settings)
    spec = Spec(*WIDTHS, reward_range=(0.0, 0.0), total_steps=10)
    conversion = {
        "columns": Columns().to_json(),
        "transforms": UNCHANGED.to_json(),
        "env": dataclasses.asdict(EnvSpec(env_id=task)),
    }
    folder = RunFolder.create(path, config, {"name": task}, spec, conversion)
    family = Family.build(agent, members_of(config.seeds, {}))
    arrays = {"states": family.init(spec), "keys": jax.random.key_data(family.train_keys)}
    checkpoint.save(folder.checkpoints, 10, {"arrays": arrays}, {}, keep=2)
    return path


def command(*words: object) -> int:
    return main.run(["data", "generate", *map(str, words)])


def test_a_run_walks_as_its_own_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, folder = sac_run(tmp_path / "ant"), tmp_path / "sets"
    short = dataclasses.replace(recipe_for(MEDIUM), steps=STEPS)
    monkeypatch.setattr("deflow.data.generate.recipe_for", lambda name: short)
    words = (MEDIUM, "--episodes", 1, "--workers", 1, "--data-dir", folder, "--json")
    assert command(*words, "--policy", run) == 0
    report = json.loads(capsys.readouterr().out)
    sound = run / "checkpoints" / "step-000000010"
    assert report["policy"] == {
        "run": "ant",
        "task": WALKING_ANT,
        "seed": 0,
        "checkpoint": sound.name,
        "checkpoint_sha256": hashlib.sha256((sound / "manifest.json").read_bytes()).hexdigest(),
    }
    kept = AntExpert.read(expert_file(folder / f"{MEDIUM}.npz"))
    seen = np.random.default_rng(1).standard_normal((50, 29))
    np.testing.assert_allclose(kept(seen), load_policy(run)(seen), atol=2e-6)

    before = both(folder / f"{MEDIUM}.npz")
    others = (*words[:-2], tmp_path / "others", "--json")
    assert command(*others, "--policy", expert_file(folder / f"{MEDIUM}.npz")) == 0
    assert json.loads(capsys.readouterr().out)["policy"] == report["policy"]
    assert both(tmp_path / "others" / f"{MEDIUM}.npz") == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"task": "online-ant-v0"}, "a run of sac on online-ant-xy-v0: give one"),
        ({"actor_layer_norm": True}, "another form than SAC's own"),
        ({"seeds": (0, 1)}, "seed0, seed1"),
    ],
)
def test_a_run_that_is_no_expert_is_refused(
    settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    run = sac_run(tmp_path / "ant", **settings)
    with pytest.raises(DeFlowError, match=words):
        command(MEDIUM, "--policy", run, "--data-dir", tmp_path / "sets")
    assert not (tmp_path / "sets").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((MEDIUM,), "is walked by a trained expert"),
        (("pointmaze-medium-navigate-v0", "--policy", "x.npz"), "takes no --policy"),
        ((MEDIUM, "--policy", "nowhere.npz"), "no file nowhere.npz"),
        ((MEDIUM, "--policy", "."), "not a run folder"),
    ],
)
def test_a_wrong_policy_is_said(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(DeFlowError, match=said):
        command(*words, "--data-dir", tmp_path)
    assert not list(tmp_path.iterdir())


def recipe_maze(dataset: str) -> list[list[int]]:
    """The maze's map, 1 a wall."""
    env = ogbench.locomaze.maze.make_maze_env("point", "maze", maze_type=dataset.split("-")[1])
    found: list[list[int]] = env.maze_map.tolist()
    return found


def vertices(maze: list[list[int]]) -> set[tuple[int, int]]:
    """Free cells at which a path may turn or end: all but those with walls on two opposite sides
    and none on the two others."""
    inside = [(i, j) for i, row in enumerate(maze) for j, cell in enumerate(row) if cell == 0]
    walls = {
        (i, j): (maze[i - 1][j], maze[i + 1][j], maze[i][j - 1], maze[i][j + 1]) for i, j in inside
    }
    return {cell for cell in inside if walls[cell] not in {(0, 0, 1, 1), (1, 1, 0, 0)}}
