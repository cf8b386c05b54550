"""What reading takes is judged by what files declare, before anything of them is decoded."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data import logs

from deflow.core.errors import DeFlowError
from deflow.data.guards import READING
from deflow.data.npz import read_npz
from deflow.data.ogbench import LAYOUT, read_set
from deflow.data.own import read_raw
from deflow.data.readers import parquet
from deflow.data.readers.arrow import column_numbers
from deflow.data.readers.footer import column_sizes

h5py = pytest.importorskip("h5py")
pa = pytest.importorskip("pyarrow")
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
    read_raw(file).dataset()  # What is imported on the way is not of the file.
    assert peak(lambda: read_raw(file).dataset()) <= READING * declared


def test_the_guards_of_hdf5_and_parquet_allow_for_it_too(tmp_path: Path, free: Free) -> None:
    log = logs.episodes(lengths=(400, 400))
    declared = sum(array.nbytes for array in logs.flat(log).values())
    for file in (
        logs.write_flat_hdf5(tmp_path / "log.hdf5", log),
        logs.write_parquet(tmp_path / "log.parquet", log),
    ):
        free(20 * declared)
        read_raw(file).dataset()
        free(declared * 3 // 2)
        with pytest.raises(DeFlowError, match="of memory available"):
            read_raw(file).dataset()


def test_parquet_files_count_together(tmp_path: Path, free: Free) -> None:
    log = logs.episodes(lengths=(400,) * 8)
    whole = logs.table(log)
    for index in range(8):
        pq.write_table(whole.slice(400 * index, 400), tmp_path / f"part-{index}.parquet")
    declared = sum(array.nbytes for array in logs.flat(log).values())
    free(declared)  # Room for each file, and not for all.
    with pytest.raises(DeFlowError, match="of memory available"):
        read_raw(tmp_path).dataset()
    free(4 * declared)
    read_raw(tmp_path).dataset()


@pytest.fixture
def arrow_pool() -> Iterator[Any]:
    """Counts what Arrow allocates."""
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    yield pool
    pa.set_memory_pool(pa.system_memory_pool())


def write_rows(path: Path, **more: Any) -> None:
    rows = 1 << 14
    flat = {"actions": np.zeros(rows), "rewards": np.zeros(rows), "terminals": np.zeros(rows, bool)}
    columns = {"observations": np.zeros(rows), **flat, **more}
    pq.write_table(pa.table(columns), path, store_schema=False)


def test_rows_of_long_lists_are_refused_before_one_is_decoded(
    tmp_path: Path, free: Free, arrow_pool: Any
) -> None:
    path = tmp_path / "log.parquet"
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(1 << 24, np.float32)), 1 << 10)
    write_rows(path, observations=lists.cast(pa.list_(pa.float32())))
    before = arrow_pool.max_memory()
    free(READING * (1 << 26) - 1)
    with pytest.raises(DeFlowError, match=r"declares 0\.1 GiB"):
        read_raw(path).dataset()
    assert arrow_pool.max_memory() == before


def test_rows_of_long_labels_are_decoded_a_few_at_a_time(
    tmp_path: Path, free: Free, arrow_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_BATCH_BYTES", 1 << 22)
    path, label = tmp_path / "log.parquet", "x" * 5000
    write_rows(path, run=pa.DictionaryArray.from_arrays(np.zeros(1 << 14, np.int32), [label]))
    assert path.stat().st_size < 20_000
    free(1 << 25)
    del label
    before = arrow_pool.bytes_allocated()
    with pytest.raises(DeFlowError, match=r"declares 0\.1 GiB"):
        read_raw(path, ["episode=run"]).dataset()
    assert arrow_pool.max_memory() - before < 1 << 25


def test_labels_of_a_dictionary_are_not_repeated_for_each_row(
    tmp_path: Path, arrow_pool: Any
) -> None:
    labels = pa.DictionaryArray.from_arrays(np.zeros(1 << 14, np.int32), ["x" * 5000])
    before = arrow_pool.max_memory()
    assert len(set(column_numbers(labels, "run").tolist())) == 1
    assert arrow_pool.max_memory() - before < 1 << 22


def test_the_footer_is_read_as_arrow_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(logs.table(logs.episodes(lengths=(30, 70))), path, row_group_size=17)
    found = pq.ParquetFile(path).metadata
    groups = [found.row_group(index) for index in range(found.num_row_groups)]
    leaves = [[group.column(index) for group in groups] for index in range(found.num_columns)]
    assert column_sizes(path) == [
        (sum(c.num_values for c in leaf), sum(c.total_uncompressed_size for c in leaf))
        for leaf in leaves
    ]


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_footer_ends_in_an_error_of_its_own(seed: int, tmp_path: Path) -> None:
    path = logs.write_parquet(tmp_path / "log.parquet", logs.episodes())
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[-8:-4], "little")
    rng = np.random.default_rng(seed)
    for place in rng.integers(len(content) - 8 - length, len(content), size=1 + seed % 5):
        content[place] ^= int(rng.integers(1, 256))
    path.write_bytes(content)
    with contextlib.suppress(ValueError, LookupError, TypeError):
        assert all(min(sizes) >= 0 for sizes in column_sizes(path))
    with contextlib.suppress(DeFlowError):
        read_raw(path).dataset()
