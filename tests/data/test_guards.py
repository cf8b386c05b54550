"""What reading takes is judged by what files declare, before anything of them is decoded."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data import logs

from deflow.core.errors import DeFlowError
from deflow.data.guards import READING
from deflow.data.npz import read_npz
from deflow.data.ogbench import LAYOUT, read_set
from deflow.data.own import load_file

h5py = pytest.importorskip("h5py")
pq = pytest.importorskip("pyarrow.parquet")

Free = Callable[[int], None]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Free:
    """Sets how many bytes are free."""
    return lambda size: monkeypatch.setattr(
        "deflow.data.guards.available_memory", lambda: size, raising=True
    )


def peak(work: Callable[[], Any]) -> int:
    """The most bytes that NumPy and Python hold during the work."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def ogbench_set(path: Path, rows: int, width: int = 4) -> Path:
    arrays = {
        "observations": np.zeros((rows, width), np.float32),
        "actions": np.zeros((rows, 2), np.float32),
        "terminals": np.arange(rows) % 100 == 99,
        "qpos": np.zeros((rows, 3), np.float32),
    }
    np.savez_compressed(path, **arrays)
    return path


def test_deflated_zeros_are_refused_before_they_are_inflated(tmp_path: Path, free: Free) -> None:
    file = ogbench_set(tmp_path / "set.npz", 400_000, width=64)
    declared = 400_000 * (4 * (64 + 2 + 3) + 1)
    assert file.stat().st_size < declared / 100
    free(declared)

    def refused() -> None:
        with pytest.raises(DeFlowError, match=r"declares 0\.1 GiB .* 0\.3 GiB .* 0\.1 GiB of mem"):
            read_set(file)

    assert peak(refused) < declared / 20


def test_a_set_of_a_million_rows_is_read(tmp_path: Path) -> None:
    file = ogbench_set(tmp_path / "set.npz", 1_000_000)
    assert len(read_set(file)["observations"]) == 1_000_000


def test_the_limit_is_what_reading_takes(tmp_path: Path, free: Free) -> None:
    file = ogbench_set(tmp_path / "set.npz", 200)
    headers = 128 * len(LAYOUT)
    declared = 200 * (4 * (4 + 2 + 3) + 1) + headers
    free(READING * declared)
    read_set(file)
    free(READING * declared - 1)
    with pytest.raises(DeFlowError, match="of memory available"):
        read_set(file)
    frames = 200 * 4 * 4
    free(READING * (declared - frames))  # What is not read does not count.
    assert "actions" in read_npz(file, skip=("observations",))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["npz", "hdf5"])
def test_reading_takes_no_more_than_is_asked_for(tmp_path: Path, kind: str, dtype: Any) -> None:
    """Where every next observation is one of its own, which costs most."""
    rng = np.random.default_rng(0)
    rows = 20_000
    arrays = {
        "observations": rng.normal(size=(rows, 30)).astype(dtype),
        "next_observations": rng.normal(size=(rows, 30)).astype(dtype),
        "actions": rng.uniform(-1, 1, size=(rows, 8)).astype(dtype),
        "rewards": rng.normal(size=rows).astype(dtype),
        "terminals": np.arange(rows) % 100 == 99,
    }
    file = tmp_path / f"log.{kind}"
    if kind == "npz":
        np.savez(file, **arrays)
    else:
        with h5py.File(file, "w") as opened:
            for name, array in arrays.items():
                opened[name] = array
    declared = sum(array.nbytes for array in arrays.values())
    load_file(file)  # What is imported on the way is not of the file.
    assert peak(lambda: load_file(file)) <= READING * declared


def test_the_guards_of_hdf5_and_parquet_allow_for_it_too(tmp_path: Path, free: Free) -> None:
    log = logs.episodes(lengths=(400, 400))
    declared = sum(array.nbytes for array in logs.flat(log).values())
    for file in (
        logs.write_flat_hdf5(tmp_path / "log.hdf5", log),
        logs.write_parquet(tmp_path / "log.parquet", log),
    ):
        free(20 * declared)
        load_file(file)
        free(declared * 3 // 2)
        with pytest.raises(DeFlowError, match="of memory available"):
            load_file(file)


def test_parquet_files_count_together(tmp_path: Path, free: Free) -> None:
    log = logs.episodes(lengths=(400,) * 8)
    whole = logs.table(log)
    for index in range(8):
        pq.write_table(whole.slice(400 * index, 400), tmp_path / f"part-{index}.parquet")
    declared = sum(array.nbytes for array in logs.flat(log).values())
    free(declared)  # Room for each file, and not for all.
    with pytest.raises(DeFlowError, match="of memory available"):
        load_file(tmp_path)
    free(4 * declared)
    load_file(tmp_path)
