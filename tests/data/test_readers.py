"""Every format gives the same data, however its columns are called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data import logs

from deflow.core.errors import DeFlowError
from deflow.data.columns_map import Columns
from deflow.data.dataset import Dataset
from deflow.data.own import is_own, read_raw
from deflow.data.readers.hdf5 import natural

pytest.importorskip("h5py")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

LOG = logs.episodes()


def test_every_format_gives_the_same_dataset(tmp_path: Path) -> None:
    many = logs.episodes(lengths=(2, 3, 4, 2, 3, 4, 2, 3, 4, 2, 3, 5))
    for log in (LOG, many):
        whole = tmp_path / f"{len(log)}"
        whole.mkdir()
        files = [
            logs.write_npz(whole / "log.npz", log),
            logs.write_flat_hdf5(whole / "flat.hdf5", log),
            logs.write_grouped_hdf5(whole / "grouped.h5", log),
            logs.write_parquet(whole / "log.parquet", log),
            logs.write_minari(whole / "minari", log),
            logs.write_minari_arrow(whole / "arrow", log),
            logs.write_minari_arrow(whole / "minari-parquet", log, "parquet"),
        ]
        for file in files:
            assert is_own(str(file))
            assert read_raw(file).dataset().fingerprint() == logs.expected(log), file


@settings(max_examples=15)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(0, 99))
def test_groups_are_read_in_the_order_of_their_numbers(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], seed: int
) -> None:
    log = logs.episodes(lengths=lengths, seed=seed)
    file = logs.write_grouped_hdf5(tmp_path_factory.mktemp("log") / "log.hdf5", log)
    assert read_raw(file).dataset().fingerprint() == logs.expected(log)


def test_numbers_in_names_count_as_numbers() -> None:
    assert sorted(["demo_10", "demo_9", "demo_1", "a"], key=natural) == [
        "a",
        "demo_1",
        "demo_9",
        "demo_10",
    ]


def test_columns_of_other_names_are_mapped(tmp_path: Path) -> None:
    arrays = logs.flat(LOG)
    names = {
        "observations": "state",
        "actions": "act",
        "rewards": "r",
        "terminals": "done",
        "timeouts": "trunc",
        "next_observations": "then",
    }
    np.savez(tmp_path / "log.npz", **{names[role]: array for role, array in arrays.items()})
    words = [f"{role}={name}" for role, name in names.items()]
    for given_as in (words, names, json.dumps(names), Columns.parse(words)):
        data = read_raw(tmp_path / "log.npz", given_as).dataset()
        assert data.fingerprint() == logs.expected(LOG)
    with pytest.raises(DeFlowError, match=r"no column 'stat' for observations .*'state'.*act"):
        read_raw(tmp_path / "log.npz", ["observations=stat"]).dataset()
    with pytest.raises(DeFlowError, match="no column for observations"):
        read_raw(tmp_path / "log.npz").dataset()


def test_vectors_of_several_columns_keep_their_order(tmp_path: Path) -> None:
    arrays = logs.flat(LOG)
    parts = {f"q{i}": pa.array(arrays["observations"][:, i]) for i in range(3)}
    pq.write_table(logs.table(LOG, **parts), tmp_path / "log.parquet")
    raw = read_raw(tmp_path / "log.parquet", ["observations=q2,q0"])
    np.testing.assert_array_equal(raw.observations, arrays["observations"][:, [2, 0]])
    assert raw.next_observations is None  # The file's own belong to other columns.


def test_a_folder_of_parquet_is_read_in_order(tmp_path: Path) -> None:
    whole = logs.table(LOG)
    for index in range(len(whole)):
        pq.write_table(whole.slice(index, 1), tmp_path / f"part-{index}.parquet")
    assert read_raw(tmp_path).dataset().fingerprint() == logs.expected(LOG)


def unmarked(folder: Path, *, rows: tuple[int, ...] = (6, 10, 8), **more: Any) -> Path:
    """A folder of recordings, a file each, in which no column says where one ends."""
    folder.mkdir()
    kept = ("observations", "actions", "rewards", *more)
    whole = logs.table(LOG, **more)
    first = 0
    for index, count in enumerate(rows):
        part = whole.select(kept).slice(first, count)
        pq.write_table(part, folder / f"take-{index}.parquet")
        first += count
    return folder


def test_each_parquet_file_of_a_folder_is_a_trajectory_of_its_own(tmp_path: Path) -> None:
    folder = unmarked(tmp_path / "takes")
    arrays = logs.flat(LOG)
    roles = [arrays[name] for name in ("observations", "actions", "rewards")]
    none = np.zeros(sum(logs.LENGTHS))
    apart = Dataset.from_arrays(*roles, none, lengths=[6, 10, 8])
    assert read_raw(folder, ["terminals=none"]).dataset().fingerprint() == apart.fingerprint()
    assert apart.transitions == sum(logs.LENGTHS) - 3  # Each file's last row is a cut.
    last = read_raw(folder, ["terminals=last"]).dataset()
    np.testing.assert_array_equal(np.flatnonzero(last.masks == 0), [5, 15, 23])
    alone = read_raw(folder / "take-1.parquet", ["terminals=none"]).dataset()
    assert (len(alone.episode_ends), alone.transitions) == (1, 9)


def test_a_file_without_rows_adds_nothing(tmp_path: Path) -> None:
    folder = unmarked(tmp_path / "takes")
    found = read_raw(folder, ["terminals=none"]).dataset().fingerprint()
    none = pq.read_table(folder / "take-0.parquet").slice(0, 0)
    for name in ("take-9", "empty"):
        pq.write_table(none, folder / f"{name}.parquet")
    assert read_raw(folder, ["terminals=none"]).dataset().fingerprint() == found


def test_what_marks_the_ends_goes_before_the_files(tmp_path: Path) -> None:
    """Rows that go on from one file to the next, as their columns say."""
    arrays = logs.flat(LOG)
    runs = np.repeat(np.arange(len(LOG)), logs.LENGTHS)
    labelled = unmarked(tmp_path / "labelled", run=pa.array(runs))
    roles = [arrays[name] for name in ("observations", "actions", "rewards")]
    whole = Dataset.from_arrays(*roles, np.zeros(len(runs)), lengths=list(logs.LENGTHS))
    found = read_raw(labelled, ["terminals=none", "episode=run"]).dataset()
    assert found.fingerprint() == whole.fingerprint()
    cuts = np.isin(np.arange(len(runs)), np.cumsum(logs.LENGTHS) - 1)
    flagged = unmarked(tmp_path / "flagged", timeouts=pa.array(cuts))
    assert read_raw(flagged, ["terminals=none"]).dataset().fingerprint() == whole.fingerprint()


@pytest.mark.parametrize("how", ["timeouts", "lengths", "episode", "labels"])
def test_episodes_come_from_flags_lengths_or_labels(tmp_path: Path, how: str) -> None:
    arrays = logs.flat(LOG)
    del arrays["next_observations"]
    reference = Dataset.from_arrays(**arrays).fingerprint()
    lengths = [len(episode["actions"]) for episode in LOG]
    columns: dict[str, Any] = {}
    if how != "timeouts":
        del arrays["timeouts"]
    if how == "lengths":
        arrays["lengths"] = np.asarray(lengths)
    elif how != "timeouts":
        columns["episode"] = "run"
        values = [7, 3, 9, 1] if how == "episode" else [0.5, 0.25, 3.0, 2.0]
        arrays["run"] = np.repeat(values, lengths)
    np.savez(tmp_path / "log.npz", **arrays)
    assert read_raw(tmp_path / "log.npz", columns).dataset().fingerprint() == reference
    if how == "episode":
        arrays["run"][-1] = 7
        np.savez(tmp_path / "log.npz", **arrays)
        with pytest.raises(DeFlowError, match="episode 7 do not lie together"):
            read_raw(tmp_path / "log.npz", columns).dataset()


def test_what_is_missing_must_be_said(tmp_path: Path) -> None:
    arrays = logs.flat(LOG)
    del arrays["rewards"], arrays["terminals"]
    np.savez(tmp_path / "log.npz", **arrays)
    with pytest.raises(DeFlowError, match="rewards=zero"):
        read_raw(tmp_path / "log.npz").dataset()
    with pytest.raises(DeFlowError, match="terminals=none"):
        read_raw(tmp_path / "log.npz", ["rewards=zero"]).dataset()
    data = read_raw(tmp_path / "log.npz", ["rewards=zero", "terminals=none"]).dataset()
    assert not data.rewards.any()
    assert data.masks.all()
    last = read_raw(tmp_path / "log.npz", ["rewards=zero", "terminals=last"]).dataset()
    np.testing.assert_array_equal(
        np.flatnonzero(last.masks == 0), np.flatnonzero(arrays["timeouts"] | last_row(arrays))
    )


def last_row(arrays: Any) -> Any:
    return np.arange(len(arrays["actions"])) == len(arrays["actions"]) - 1


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_lerobot_folder(tmp_path: Path, version: str) -> None:
    logs.write_lerobot(tmp_path / "push", LOG, version=version)
    with pytest.raises(DeFlowError, match="rewards=zero"):
        read_raw(tmp_path / "push").dataset()
    data = read_raw(tmp_path / "push", ["rewards=zero"]).dataset()
    arrays = logs.flat(LOG)
    reference = Dataset.from_arrays(
        arrays["observations"],
        arrays["actions"],
        np.zeros(len(arrays["actions"])),
        np.zeros(len(arrays["actions"])),
        lengths=[len(episode["actions"]) for episode in LOG],
    )
    assert data.fingerprint() == reference.fingerprint()
    done = read_raw(tmp_path / "push", ["rewards=zero", "terminals=next.done"]).dataset()
    assert (done.masks == 0).sum() == len(LOG)
    with pytest.raises(DeFlowError, match="are text"):
        read_raw(tmp_path / "push", ["rewards=zero", "observations=task"]).dataset()


def test_lerobot_frames_must_be_whole_and_in_order(tmp_path: Path) -> None:
    source = logs.write_lerobot(tmp_path / "push", LOG)
    chunk = source / "data" / "chunk-000"
    (chunk / "file-001.parquet").rename(tmp_path / "kept.parquet")
    with pytest.raises(DeFlowError, match="declares 24"):
        read_raw(source, ["rewards=zero"]).dataset()
    shutil.copy(tmp_path / "kept.parquet", chunk / "file-001.parquet")
    last = chunk / "file-003.parquet"
    pq.write_table(pq.read_table(last).take([1, 0, 2, 3]), last)
    with pytest.raises(DeFlowError, match="out of order at row"):
        read_raw(source, ["rewards=zero"]).dataset()


def test_dictionaries_of_numbers_are_numbers(tmp_path: Path) -> None:
    rewards = pa.array(logs.flat(LOG)["rewards"]).dictionary_encode()
    whole = logs.table(LOG)
    index = whole.column_names.index("rewards")
    pq.write_table(whole.set_column(index, "rewards", rewards), tmp_path / "log.parquet")
    assert read_raw(tmp_path / "log.parquet").dataset().fingerprint() == logs.expected(LOG)


def test_one_column_is_a_vector_of_one(tmp_path: Path) -> None:
    arrays = logs.flat(LOG)
    del arrays["next_observations"]
    arrays["observations"] = arrays["observations"][:, 0]
    arrays["actions"] = arrays["actions"][:, 0]
    np.savez(tmp_path / "log.npz", **arrays)
    raw = read_raw(tmp_path / "log.npz")
    assert raw.observations.shape == raw.actions.shape == (sum(logs.LENGTHS), 1)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["state"], "role=name"),
        (["actions="], "role=name"),
        (["action=a"], r"no role 'action' .*'actions'"),
        (["actions=a", "actions=b"], "twice"),
        (["{"], "no JSON"),
        (["[1]"], "role=name"),
        (['{"actions": 3}'], "must be names"),
        (['{"actions": [""]}'], "must be names"),
        (['{"rewards": ["a", "b"]}'], "one column"),
    ],
)
def test_columns_that_are_misspelt_are_named(words: list[str], error: str) -> None:
    with pytest.raises(DeFlowError, match=error):
        Columns.parse(words)


def test_columns_survive_json() -> None:
    columns = Columns.parse(["observations=a,b", "rewards=zero", "episode=run"])
    assert Columns.from_json(json.loads(json.dumps(columns.to_json()))) == columns
    assert Columns.of(None) == Columns()


def test_episodes_of_hdf5_are_named_by_text_of_a_fixed_length(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    names = np.repeat(["left", "r", "up", "dn"], logs.LENGTHS)
    path = logs.write_flat_hdf5(tmp_path / "log.hdf5", LOG)
    with h5py.File(path, "a") as file:
        file["run"], file["any"] = names.astype("S4"), names.tolist()
    data = read_raw(path, ["episode=run"]).dataset()
    assert data.fingerprint() == logs.expected(LOG)
    with pytest.raises(DeFlowError, match="'any' holds text of any length"):
        read_raw(path, ["episode=any"]).dataset()
    with pytest.raises(DeFlowError, match="are text, and must be real numbers"):
        read_raw(path, ["rewards=run"]).dataset()


@pytest.mark.parametrize("frames", [["a", "b"], [[], []]])
def test_lerobot_frames_must_be_numbers(tmp_path: Path, frames: list[Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = logs.write_lerobot(tmp_path / "push", LOG)
    file = sorted(source.rglob("*.parquet"))[0]
    table = pq.read_table(file)
    place = table.column_names.index("frame_index")
    column = pa.array([frames[row % 2] for row in range(len(table))])
    if frames == [[], []]:
        column = column.cast(pa.list_(pa.int64()))
    pq.write_table(table.set_column(place, "frame_index", column), file)
    with pytest.raises(DeFlowError, match="frame_index"):
        read_raw(source, ["rewards=zero"]).dataset()


def test_a_ragged_row_is_named_by_its_place_in_the_file(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [[0.0, 1.0]] * 40_000
    rows[30_000] = [0.0]
    table = {"observations": rows, "actions": [[0.1]] * 40_000, "rewards": [0.0] * 40_000}
    pq.write_table(pa.table(table), tmp_path / "log.parquet")
    with pytest.raises(DeFlowError, match="row 30000 has 1 numbers"):
        read_raw(tmp_path / "log.parquet", ["terminals=last"]).dataset()
