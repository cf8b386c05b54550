"""Damaged and hostile files: one clear error or sound data, nothing written, no code run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.data import logs
from tests.data.hostile_hdf5 import HDF5
from tests.data.hostile_minari import MINARI
from tests.data.hostile_npz import NPZ
from tests.data.hostile_tables import LEROBOTS, PARQUET
from tests.data.logs import Make

from deflow.core.errors import DeFlowError
from deflow.data.inspect import inspect
from deflow.data.own import load_own

LOG = logs.episodes()
LEROBOT = ["rewards=zero"]

WHOLE: dict[str, tuple[Make, str]] = {
    "npz": (lambda at: logs.write_npz(at / "log.npz", LOG), ""),
    "flat-hdf5": (lambda at: logs.write_flat_hdf5(at / "log.hdf5", LOG), ""),
    "grouped-hdf5": (lambda at: logs.write_grouped_hdf5(at / "log.hdf5", LOG), ""),
    "parquet": (lambda at: logs.write_parquet(at / "log.parquet", LOG), ""),
    "lerobot": (
        lambda at: logs.write_lerobot(at / "log", LOG),
        "data/chunk-000/file-002.parquet",
    ),
    "lerobot-info": (lambda at: logs.write_lerobot(at / "log", LOG), "meta/info.json"),
    "minari": (lambda at: logs.write_minari(at / "log", LOG), "data/main_data.hdf5"),
    "minari-metadata": (lambda at: logs.write_minari(at / "log", LOG), "data/metadata.json"),
    "minari-arrow": (lambda at: logs.write_minari_arrow(at / "log", LOG), "data/2/part-0.arrow"),
    "minari-parquet": (
        lambda at: logs.write_minari_arrow(at / "log", LOG, "parquet"),
        "data/2/part-0.parquet",
    ),
}
"""Each format, and the file in its folder that is damaged."""


@pytest.fixture(autouse=True)
def nothing_but_reading(tmp_path: Path) -> Iterator[None]:
    """Whatever a test lays down stays as it is, and no mark of code appears."""
    yield
    assert not (tmp_path / "mark").exists(), "code in a file was run"


def columns_for(path: Path) -> list[str]:
    return LEROBOT if (path / "meta").is_dir() else []


def sound_or_refused(path: Path) -> str:
    """The error's words, or none where the data are sound; fails on anything else."""
    before = listing(path.parent)
    words = ""
    try:
        data = load_own(path, columns_for(path)).dataset
    except DeFlowError as error:
        words = str(error)
    else:
        for array in (data.observations, data.actions, data.rewards, data.masks):
            assert np.isfinite(array).all()
        assert np.abs(data.actions).max() <= 1.0
        assert data.rows.max() < len(data.observations)
        assert 0 <= data.next_rows.min() <= data.next_rows.max() < len(data.observations)
    assert "\n" not in words
    assert len(words) < 2000
    assert listing(path.parent) == before
    return words


def inspected_or_refused(path: Path) -> None:
    """`deflow data inspect` says what it finds, or refuses in one sentence."""
    words = ""
    try:
        json.dumps(inspect(str(path), columns=columns_for(path) or None))
    except DeFlowError as error:
        words = str(error)
    assert "\n" not in words


def listing(folder: Path) -> list[tuple[str, int, int]]:
    found = []
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        found.append((str(path), about.st_size, about.st_mtime_ns))
    return found


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("kind", WHOLE)
def test_a_truncated_file_is_refused_in_one_sentence(
    tmp_path: Path, kind: str, share: float
) -> None:
    make, inner = WHOLE[kind]
    path = make(tmp_path)
    file = path / inner if inner else path
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    words = sound_or_refused(path)
    # The end of an Arrow or HDF5 file may be padding, which nobody misses.
    assert words or share > 0.9


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", WHOLE)
def test_flipped_bytes_are_read_or_refused_in_one_sentence(
    tmp_path: Path, kind: str, seed: int
) -> None:
    make, inner = WHOLE[kind]
    path = make(tmp_path)
    file = path / inner if inner else path
    flip(file, seed)
    sound_or_refused(path)


def flip(file: Path, seed: int) -> None:
    """Spoil a few bytes: at the beginning, at the end, or anywhere."""
    rng = np.random.default_rng(seed)
    content = bytearray(file.read_bytes())
    low, high = [(0, 256), (len(content) - 512, len(content)), (0, len(content))][seed % 3]
    for place in rng.integers(max(low, 0), min(high, len(content)), size=1 + seed):
        content[place] ^= int(rng.integers(1, 256))
    file.write_bytes(bytes(content))


CASES = [
    pytest.param(make, words, id=f"{kind}-{name}")
    for kind, cases in (
        ("npz", NPZ),
        ("hdf5", HDF5),
        ("parquet", PARQUET),
        ("lerobot", LEROBOTS),
        ("minari", MINARI),
    )
    for name, make, words in cases
]


@pytest.mark.parametrize(("make", "words"), CASES)
def test_a_hostile_file_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make, words: str
) -> None:
    evil = tmp_path / "evil"
    evil.mkdir()
    mark = tmp_path / "mark"
    (evil / "deflow_evil.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    monkeypatch.syspath_prepend(evil)
    monkeypatch.chdir(evil)
    at = tmp_path / "at"
    at.mkdir()
    path = make(at)
    said = sound_or_refused(path)
    inspected_or_refused(path)
    assert words in said
    assert bool(words) == bool(said)


@pytest.mark.parametrize("kind", ["npz", "parquet", "lerobot", "minari-arrow", "minari-parquet"])
def test_what_exceeds_the_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = WHOLE[kind][0](tmp_path)
    monkeypatch.setattr("deflow.data.guards.available_memory", lambda: 100)
    assert "of memory available" in sound_or_refused(path)


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 100


def test_what_is_no_data_at_all(tmp_path: Path) -> None:
    for name in ("absent.npz", "absent.hdf5", "absent.parquet", "absent", "absent.csv"):
        assert sound_or_refused(tmp_path / name)
    (tmp_path / "log.csv").write_text("1,2,3\n")
    assert ".parquet" in sound_or_refused(tmp_path / "log.csv")
    for ending in ("npz", "hdf5", "h5", "parquet"):
        (tmp_path / f"noise.{ending}").write_bytes(os.urandom(3000))
        (tmp_path / f"folder.{ending}").mkdir()
        assert sound_or_refused(tmp_path / f"noise.{ending}")
        assert sound_or_refused(tmp_path / f"folder.{ending}")
