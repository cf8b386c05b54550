"""D4RL's sets: names, scores, and transitions as D4RL's view and the published code make them."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deflow.core.errors import DeFlowError
from deflow.data import d4rl
from deflow.data.d4rl import TASKS, D4RLTask, load_d4rl, normalized_score, parse_d4rl, prepare
from deflow.data.dataset import Dataset
from deflow.data.provenance import provenance_file, read_json

WIDTHS = {"antmaze": (29, 8), "adroit": (45, 24), "locomotion": (17, 6), "maze2d": (4, 2)}
ONE_OF_EACH = ("antmaze-umaze-v2", "pen-human-v1", "halfcheetah-medium-v2", "maze2d-umaze-v1")

Arrays = dict[str, np.ndarray[Any, Any]]


def arrays_of(task: D4RLTask, terminals: list[bool], timeouts: list[bool] | None) -> Arrays:
    """Rows that differ from each other, in the official layout."""
    count = len(terminals)
    rng = np.random.default_rng(count)
    obs, act = WIDTHS[task.domain]
    arrays: Arrays = {
        "observations": rng.normal(size=(count, obs)).astype(np.float32),
        "actions": rng.uniform(-1.3, 1.3, (count, act)).astype(np.float32),
        "rewards": rng.normal(size=count).astype(np.float32),
        "terminals": np.array(terminals),
    }
    if timeouts is not None:
        arrays["timeouts"] = np.array(timeouts)
    return arrays


def write(path: Path, arrays: Arrays, **more: Any) -> Path:
    with h5py.File(path, "w") as file:
        for key, value in {**arrays, **more}.items():
            file[key] = value
    return path


def published(task: D4RLTask, arrays: Arrays) -> Arrays:
    """Row by row, as D4RL's documentation of its Q-learning view and FQL's preparation describe."""
    kept: list[int] = []
    for i in range(len(arrays["rewards"]) - 1):
        if not arrays["timeouts"][i]:
            kept.append(i)
    index = np.array(kept, int)
    view = {
        "observations": arrays["observations"][index],
        "next_observations": arrays["observations"][index + 1],
        "actions": np.clip(arrays["actions"][index], -1 + 1e-5, 1 - 1e-5),
        "rewards": arrays["rewards"][index] - (task.domain == "antmaze"),
        "masks": 1.0 - arrays["terminals"][index],
    }
    ends = []
    for k in range(len(index)):
        if k == len(index) - 1:
            ends.append(True)
            continue
        gap = np.linalg.norm(view["observations"][k + 1] - view["next_observations"][k]) > 1e-6
        ends.append(bool(gap or (task.domain != "antmaze" and view["masks"][k] == 0)))
    return {**view, "ends": np.array(ends)}


def ours(data: Dataset) -> Arrays:
    episode = np.searchsorted(data.episode_ends, data.rows)
    return {
        "observations": data.observations[data.rows],
        "next_observations": data.observations[data.next_rows],
        "actions": data.actions[data.rows],
        "rewards": data.rewards[data.rows],
        "masks": data.masks[data.rows],
        "ends": np.append(episode[1:] != episode[:-1], True),
    }


@given(
    name=st.sampled_from(ONE_OF_EACH),
    flags=st.lists(
        st.tuples(st.sampled_from([False] * 5 + [True]), st.sampled_from([False] * 5 + [True])),
        min_size=2,
        max_size=40,
    ),
)
def test_transitions_are_those_of_the_published_code(
    name: str, flags: list[tuple[bool, bool]]
) -> None:
    task = parse_d4rl(name)
    terminals, timeouts = (list(column) for column in zip(*flags, strict=True))
    arrays = arrays_of(task, terminals, timeouts)
    if all(timeouts[:-1]):
        with pytest.raises(DeFlowError, match="no transition"):
            prepare(task, arrays, "here")
        return
    data = prepare(task, arrays, "here")
    reference = published(task, arrays)
    for key, array in ours(data).items():
        np.testing.assert_allclose(array, reference[key], atol=1e-7, err_msg=key)
    assert len(data.episode_ends) == reference["ends"].sum()
    for array in (data.observations, data.actions, data.rewards, data.masks):
        assert array.dtype == np.float32
        assert len(array) == len(data.observations)
    if task.domain != "antmaze":  # nothing leads from one trajectory into another
        assert not np.isin(data.next_rows[ours(data)["masks"] == 0], data.rows).any()


def test_time_runs_out_by_the_horizon_where_the_file_does_not_say() -> None:
    task = parse_d4rl("maze2d-umaze-v1")
    terminals = [False] * 1000
    terminals[449] = True
    data = prepare(task, arrays_of(task, terminals, None), "here")
    dropped = sorted(set(range(1000)) - set(data.rows.tolist()))
    assert dropped == [299, 749, 999]
    assert data.episode_ends.tolist() == [299, 449, 749, 999]


@pytest.mark.parametrize("name", TASKS)
def test_a_small_file_in_the_official_schema_loads(name: str, tmp_path: Path) -> None:
    task = parse_d4rl(name)
    arrays = arrays_of(task, [False] * 12, [False] * 5 + [True] + [False] * 5 + [True])
    column = {"rewards": arrays["rewards"][:, None], "terminals": np.zeros((12, 1), np.float32)}
    more = {
        "infos/qpos": np.zeros((12, 15)),
        "infos/goal": np.zeros((12, 2)),
        "metadata/algorithm": "SAC",
        "metadata/policy/fc0/weight": np.eye(3),
    }
    official = Path(task.file)
    assert official.suffix == ".hdf5"
    folders = [tmp_path / f"{name}.hdf5", tmp_path / official.name, tmp_path / official]
    for place in folders:
        place.parent.mkdir(exist_ok=True)
        write(place, {**arrays, **column}, **more)
        data = load_d4rl(task, tmp_path, download=False)
        assert (data.name, data.transitions, len(data.episode_ends)) == (name, 10, 2)
        np.testing.assert_array_equal(data.observations[data.next_rows[0]], data.observations[1])
        shift = float(task.domain == "antmaze")
        np.testing.assert_allclose(data.rewards[data.rows], arrays["rewards"][data.rows] - shift)
        place.unlink()


def test_d4rls_own_folder_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(d4rl, "D4RL_FOLDER", tmp_path / "own")
    (tmp_path / "own").mkdir()
    task = parse_d4rl("hopper-medium-replay-v2")
    path = tmp_path / "own" / "hopper_medium_replay-v2.hdf5"
    write(path, arrays_of(task, [False] * 4, [False] * 4))
    assert load_d4rl(task, tmp_path, download=False).transitions == 3


def test_there_are_thirty_tasks_with_the_files_of_d4rls_registry() -> None:
    counts = [sum(task.domain == domain for task in TASKS.values()) for domain in WIDTHS]
    assert counts == [6, 12, 9, 3]
    files = {name: task.file for name, task in TASKS.items()}
    start, end = "ant_maze_v2/Ant_maze_", "_sparse_fixed.hdf5"
    both = "noisy_multistart_True_multigoal_True"
    expected = {
        "antmaze-umaze-v2": f"{start}u-maze_noisy_multistart_False_multigoal_False{end}",
        "antmaze-umaze-diverse-v2": f"{start}u-maze_{both}{end}",
        "antmaze-medium-play-v2": f"{start}big-maze_noisy_multistart_True_multigoal_False{end}",
        "antmaze-large-diverse-v2": f"{start}hardest-maze_{both}{end}",
        "relocate-cloned-v1": "hand_dapg_v1/relocate-cloned-v1.hdf5",
        "walker2d-medium-expert-v2": "gym_mujoco_v2/walker2d_medium_expert-v2.hdf5",
        "maze2d-large-v1": "maze2d/maze2d-large-sparse-v1.hdf5",
    }
    assert {name: files[name] for name in expected} == expected
    assert len(set(files.values())) == 30


def test_scores_are_d4rls_points() -> None:
    assert normalized_score("antmaze-large-play-v2", 0.5) == 50
    assert normalized_score("pen-human-v1", 3076.8331017826877) == 100
    np.testing.assert_allclose(
        normalized_score("hopper-medium-v2", 3254.572305), 100.623, atol=1e-3
    )
    for name, task in TASKS.items():
        scores = [normalized_score(name, value) for value in task.reference]
        np.testing.assert_allclose(scores, (0, 100), atol=1e-9)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("antmaze-large-v2", "antmaze-large-play-v2"),
        ("pen-human-v0", "pen-human-v1"),
        ("zzz", "looks like 'antmaze-large-play-v2'"),
    ],
)
def test_an_unknown_task_is_said_with_the_nearest(name: str, words: str) -> None:
    with pytest.raises(DeFlowError, match=words):
        parse_d4rl(name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"actions": np.zeros((11, 2))}, "actions have 11 rows"),
        ({"rewards": np.zeros((12, 2))}, "one number per row"),
        ({"rewards": np.full(12, np.nan)}, "row 0 is nan"),
        ({"terminals": np.full(12, 2)}, "true or false"),
        ({"timeouts": np.ones(12)}, "no transition"),
        ({"observations": np.zeros((0, 4))}, "are empty"),
        ({"observations": np.zeros(12)}, "two dimensions"),
        ({"terminals": None}, "lacks terminals"),
    ],
)
def test_a_set_that_does_not_fit_is_one_sentence(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    task = parse_d4rl("maze2d-medium-v1")
    arrays = {**arrays_of(task, [False] * 12, [False] * 12), **change}
    path = write(tmp_path / f"{task.name}.hdf5", {k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(DeFlowError, match=words) as raised:
        load_d4rl(task, tmp_path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_set_that_is_not_here_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = parse_d4rl("maze2d-medium-v1")
    monkeypatch.setattr(d4rl, "D4RL_FOLDER", tmp_path)
    with pytest.raises(
        DeFlowError, match=r"fetch https://.*/maze2d-medium-sparse-v1\.hdf5 by other"
    ):
        load_d4rl(task, tmp_path, download=False)
    monkeypatch.setattr(d4rl, "OFFICIAL", "http://127.0.0.1:9")
    with pytest.raises(DeFlowError, match=r"could not be fetched .*; fetch http"):
        load_d4rl(task, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """A host that serves the folder `served`."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path / "served"))

        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_set_is_downloaded_once(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = parse_d4rl("antmaze-umaze-v2")
    served = tmp_path / "served" / task.file
    served.parent.mkdir(parents=True)
    write(served, arrays_of(task, [False] * 6, [False] * 6))
    monkeypatch.setattr(d4rl, "OFFICIAL", host)
    monkeypatch.setattr(d4rl, "D4RL_FOLDER", tmp_path / "none")
    data = load_d4rl(task, tmp_path / "sets")
    assert data.transitions == 5
    kept = read_json(provenance_file(tmp_path / "sets" / f"{task.name}.hdf5"))
    assert kept["made_by"] == f"download from {host}/{task.file}"
    served.unlink()
    assert load_d4rl(task, tmp_path / "sets").fingerprint() == data.fingerprint()
    (tmp_path / "sets" / f"{task.name}.hdf5").write_bytes(b"short")
    with pytest.raises(DeFlowError, match="5 bytes, and had"):
        load_d4rl(task, tmp_path / "sets")


@pytest.mark.parametrize("name", ["antmaze-umaze-v2", "pen-expert-v1"])
def test_without_h5py_it_is_said_before_anything_is_fetched_or_played(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    monkeypatch.setattr("deflow.data.d4rl.fetch", lambda *_: pytest.fail("fetched"))
    with pytest.raises(DeFlowError, match=r"h5py, which is not installed: .*d4rl"):
        load_d4rl(TASKS[name], tmp_path)
