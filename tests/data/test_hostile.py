"""Damaged and hostile files: one clear error or sound data, nothing written, no code run."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data import logs

from deflow.core.errors import DeFlowError
from deflow.data.inspect import inspect
from deflow.data.own import load_own

h5py = pytest.importorskip("h5py")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
feather = pytest.importorskip("pyarrow.feather")

LOG = logs.episodes()
ROWS = sum(logs.LENGTHS)
LEROBOT = ["rewards=zero"]

Make = Callable[[Path], Path]
"""Writes a file or folder into an empty folder and returns its path."""

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


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


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
def test_truncated(tmp_path: Path, kind: str, share: float) -> None:
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
def test_flipped_bytes(tmp_path: Path, kind: str, seed: int) -> None:
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


def npz(at: Path, **changes: Any) -> Path:
    arrays = {**logs.flat(LOG), **changes}
    np.savez(at / "log.npz", **{k: v for k, v in arrays.items() if v is not None})
    return at / "log.npz"


def spoilt(name: str, index: Any, value: float) -> Any:
    array = logs.flat(LOG)[name].astype(np.float64)
    array[index] = value
    return array


def member(at: Path, header: bytes, body: bytes = b"", **kwargs: Any) -> Path:
    """An .npz whose observations are this .npy."""
    path = npz(at, observations=None)
    with zipfile.ZipFile(path, "a", **kwargs) as archive:
        npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body
        archive.writestr("observations.npy", npy)
    return path


def shape(text: str, kind: str = "<f4") -> bytes:
    return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {text}}}\n".encode()


def objects(at: Path) -> Path:
    array = np.asarray([Bomb(at / "mark")] * ROWS, dtype=object)
    return npz(at, observations=array)


def bare_pickle(at: Path) -> Path:
    (at / "log.npz").write_bytes(pickle.dumps(Bomb(at / "mark")))
    return at / "log.npz"


def single_npy(at: Path) -> Path:
    with (at / "log.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    return at / "log.npz"


def zip_bomb(at: Path) -> Path:
    """Zeros of 64 GiB, as the archive's directory tells it."""
    path = npz(at)
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02")
    content[place + 24 : place + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    for extra in range(1, 16):
        following = content.find(b"PK\x01\x02", place + 1)
        if following < 0 or extra == 15:
            break
        place = following
        content[place + 24 : place + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(bytes(content))
    return path


def outward_names(at: Path) -> Path:
    path = npz(at)
    with zipfile.ZipFile(path, "a") as archive, io.BytesIO() as buffer:
        np.save(buffer, np.zeros(3))
        archive.writestr("../../mark/evil.npy", buffer.getvalue())
        archive.writestr("/mark.npy", buffer.getvalue())
    return path


def pipe(at: Path) -> Path:
    os.mkfifo(at / "log.npz")
    return at / "log.npz"


NPZ: list[tuple[str, Make, str]] = [
    ("nan", lambda at: npz(at, observations=spoilt("observations", (3, 1), np.nan)), "row 3"),
    ("infinite", lambda at: npz(at, rewards=spoilt("rewards", 4, np.inf)), "rewards must be"),
    ("nan-next", lambda at: npz(at, next_observations=np.full((ROWS, 3), np.nan)), "finite"),
    ("nan-flag", lambda at: npz(at, terminals=spoilt("terminals", 0, np.nan)), "true or false"),
    ("text", lambda at: npz(at, observations=np.full((ROWS, 3), "a")), "real numbers"),
    ("complex", lambda at: npz(at, rewards=np.full(ROWS, 1j)), "real numbers"),
    ("dates", lambda at: npz(at, rewards=np.zeros(ROWS, "datetime64[s]")), "real numbers"),
    ("records", lambda at: npz(at, rewards=np.zeros(ROWS, [("a", "f4")])), "real numbers"),
    ("objects", objects, "pickle"),
    ("pickle", bare_pickle, "no .npz"),
    ("single", single_npy, "single array"),
    ("scalar", lambda at: npz(at, observations=np.float32(1)), "two dimensions"),
    ("empty", lambda at: npz(at, observations=np.zeros((0, 3))), "rows"),
    ("cube", lambda at: npz(at, observations=np.zeros((ROWS, 3, 3))), "two dimensions"),
    ("short", lambda at: npz(at, actions=np.zeros((ROWS - 1, 2))), "rows"),
    ("wide", lambda at: npz(at, rewards=np.zeros((ROWS, 2))), "one number per row"),
    ("discrete", lambda at: npz(at, actions=np.zeros(ROWS, int)), "discrete"),
    ("lengths", lambda at: npz(at, lengths=np.asarray([ROWS + 1])), "sum to"),
    ("lengths-zero", lambda at: npz(at, lengths=np.asarray([ROWS, 0])), "at least 1"),
    ("lengths-wrap", lambda at: npz(at, lengths=np.asarray([2**62] * 4 + [ROWS])), "sum to"),
    ("lengths-real", lambda at: npz(at, lengths=np.asarray([float(ROWS)])), "whole"),
    ("no-actions", lambda at: npz(at, actions=None), "no column for actions"),
    ("no-terminals", lambda at: npz(at, terminals=None), "terminals=none"),
    ("huge", lambda at: member(at, shape("(1000000000000, 3)")), "no .npz"),
    ("negative", lambda at: member(at, shape("(-4, 3)")), "no .npz"),
    ("overflow", lambda at: member(at, shape("(4294967296, 4294967296)")), "no .npz"),
    ("code", lambda at: member(at, b"{'descr': __import__('os')}\n"), "refused"),
    ("object-header", lambda at: member(at, shape("(2,)", "|O"), b"cos\nabort\n(tR."), "pickle"),
    ("lzma", lambda at: member(at, shape("(1,)"), compression=zipfile.ZIP_LZMA), "compressed"),
    ("bzip2", lambda at: member(at, shape("(1,)"), compression=zipfile.ZIP_BZIP2), "compressed"),
    ("bomb", zip_bomb, "GiB"),
    ("names", outward_names, ""),
    ("pipe", pipe, "There is no file"),
]


def hdf5(at: Path, change: Callable[[Any], Any], write: Any = logs.write_flat_hdf5) -> Path:
    path: Path = write(at / "log.hdf5", LOG)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def instead(name: str, make: Callable[[Any], Any]) -> Make:
    """A flat file with another thing in place of a dataset."""

    def change(file: Any) -> None:
        del file[name]
        make(file)

    return lambda at: hdf5(at, change)


def external_storage(file: Any) -> None:
    elsewhere = [("/etc/passwd", 0, ROWS * 4)]
    file.create_dataset("rewards", (ROWS,), "f4", external=elsewhere)


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout(shape=(ROWS,), dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(ROWS,))
    file.create_virtual_dataset("rewards", layout)


def ragged(file: Any) -> None:
    rows = file.create_dataset("rewards", (ROWS,), h5py.vlen_dtype(np.float32))
    rows[0] = [1.0, 2.0]


def references(file: Any) -> None:
    file.create_dataset("rewards", (ROWS,), h5py.ref_dtype)


def link(target: Any) -> Callable[[Any], None]:
    return lambda file: file.__setitem__("rewards", target)


def declares(rows: int, **kwargs: Any) -> Callable[[Any], None]:
    return lambda file: file.create_dataset("rewards", (rows,), "f4", **kwargs)


def loops(file: Any) -> None:
    file["again"] = file["/"]


def short_group(file: Any) -> None:
    rewards = file["data/demo_1/rewards"][:-1]
    del file["data/demo_1/rewards"]
    file["data/demo_1/rewards"] = rewards


def wider_group(file: Any) -> None:
    del file["data/demo_1/observations"]
    file["data/demo_1/observations"] = np.zeros((logs.LENGTHS[1] + 1, 5))


def missing_in_group(file: Any) -> None:
    del file["data/demo_1/actions"]


def unseen_group(file: Any) -> None:
    del file["data/demo_1/observations"]


def deep_unseen_group(file: Any) -> None:
    file["data/demo_9/obs/joints"] = np.zeros((3, 3))


def no_data_beside(file: Any) -> None:
    """Neither a group without data nor a group elsewhere is an episode."""
    file.create_group("data/notes")
    file["mask/train"] = np.arange(3)
    file["data/total"] = 3


def two_depths(file: Any) -> None:
    file["other/demo_9/observations"] = np.zeros((3, 3))


def grouped(change: Callable[[Any], Any]) -> Make:
    return lambda at: hdf5(at, change, logs.write_grouped_hdf5)


HDF5: list[tuple[str, Make, str]] = [
    ("external-link", instead("rewards", link(h5py.ExternalLink("/etc/x.h5", "/r"))), "link"),
    ("soft-link", instead("rewards", link(h5py.SoftLink("/actions"))), "link"),
    ("outward-link", instead("rewards", link(h5py.SoftLink("../../x"))), "link"),
    ("external-storage", instead("rewards", external_storage), "other files"),
    ("virtual", instead("rewards", virtual), "other files"),
    ("ragged", instead("rewards", ragged), "no plain numbers"),
    ("references", instead("rewards", references), "no plain numbers"),
    ("strings", instead("rewards", lambda f: f.__setitem__("rewards", ["a"] * ROWS)), "numbers"),
    ("huge", instead("rewards", declares(10**13, chunks=(1024,))), "GiB"),
    ("longer", instead("rewards", declares(ROWS + 1)), "rows"),
    ("missing", instead("rewards", lambda file: None), "no column for rewards"),
    ("group", instead("rewards", lambda f: f.create_group("rewards")), "no column for rewards"),
    ("empty", instead("rewards", lambda f: f.__setitem__("rewards", h5py.Empty("f4"))), "nothing"),
    ("loop", lambda at: hdf5(at, loops), "circles"),
    ("short-group", grouped(short_group), "demo_1"),
    ("wider-group", grouped(wider_group), "ragged"),
    ("missing-in-group", grouped(missing_in_group), "lacks data/demo_1/actions"),
    ("unseen-group", grouped(unseen_group), "data/demo_1 holds no 'observations'"),
    ("deep-unseen-group", grouped(deep_unseen_group), "data/demo_9 holds no 'observations'"),
    ("no-data-beside", grouped(no_data_beside), ""),
    ("two-depths", grouped(two_depths), "several depths"),
]


def parquet(at: Path, name: str, column: Any) -> Path:
    whole = logs.table(LOG)
    index = whole.column_names.index(name)
    changed = (
        whole.remove_column(index) if column is None else whole.set_column(index, name, column)
    )
    pq.write_table(changed, at / "log.parquet")
    return at / "log.parquet"


def other(name: str, column: Any) -> Make:
    return lambda at: parquet(at, name, column)


def decimals() -> Any:
    return pa.array(range(ROWS)).cast(pa.decimal128(20, 0))


def ragged_lists() -> Any:
    return pa.array([[1.0] * (2 + row % 2) for row in range(ROWS)])


def twice(at: Path) -> Path:
    whole = logs.table(LOG)
    doubled = whole.append_column("rewards", whole.column("rewards"))
    pq.write_table(doubled, at / "log.parquet")
    return at / "log.parquet"


def folder_link(at: Path) -> Path:
    outside = logs.write_parquet(at / "outside.parquet", LOG)
    (at / "log").mkdir()
    (at / "log" / "part-0.parquet").symlink_to(outside)
    return at / "log"


def unlike(at: Path) -> Path:
    (at / "log").mkdir()
    pq.write_table(logs.table(LOG), at / "log" / "part-0.parquet")
    wide = pa.array([[0.0] * 5] * ROWS)
    shutil.move(parquet(at, "actions", wide), at / "log" / "part-1.parquet")
    return at / "log"


NULLS = pa.array([None] + [0.0] * (ROWS - 1))

PARQUET: list[tuple[str, Make, str]] = [
    ("decimal", other("rewards", decimals()), "decimal"),
    ("text", other("rewards", pa.array(["a"] * ROWS)), "are text"),
    ("bytes", other("observations", pa.array([pickle.dumps(1)] * ROWS)), "binary"),
    ("times", other("rewards", pa.array([0] * ROWS).cast(pa.timestamp("s"))), "timestamp"),
    ("words", other("rewards", pa.array(["a"] * ROWS).dictionary_encode()), "are text"),
    ("nested", other("observations", pa.array([[[1.0]]] * ROWS)), "list"),
    ("struct", other("observations", pa.array([{"x": 1.0}] * ROWS)), "struct"),
    ("null", other("rewards", NULLS), "empty cells"),
    ("null-type", other("rewards", pa.nulls(ROWS)), "empty cells"),
    ("null-list", other("observations", pa.array([None] + [[0.0] * 3] * (ROWS - 1))), "empty"),
    ("null-in-list", other("observations", pa.array([[None, 1.0, 1.0]] * ROWS)), "empty numbers"),
    ("ragged", other("observations", ragged_lists()), "ragged"),
    ("empty-lists", other("observations", pa.array([[]] * ROWS, pa.list_(pa.float32()))), "empty"),
    ("nan", other("rewards", pa.array([float("nan")] * ROWS)), "finite"),
    ("discrete", other("actions", pa.array(range(ROWS))), "discrete"),
    ("missing", other("actions", None), "no column for actions"),
    ("twice", twice, "2 columns"),
    ("cut-link", folder_link, "leads out of"),
    ("unlike", unlike, "different widths"),
    ("none", lambda at: (at / "log").mkdir() or at / "log", "nothing to read"),
    ("rows-none", lambda at: emptied(at), "empty"),
]


def emptied(at: Path) -> Path:
    pq.write_table(logs.table(LOG).slice(0, 0), at / "log.parquet")
    return at / "log.parquet"


def info(**changes: Any) -> Make:
    """A LeRobot folder with another description."""

    def make(at: Path) -> Path:
        folder = logs.write_lerobot(at / "log", LOG)
        file = folder / "meta" / "info.json"
        document = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({k: v for k, v in document.items() if v is not None}))
        return folder

    return make


def text_info(text: str) -> Make:
    def make(at: Path) -> Path:
        folder = logs.write_lerobot(at / "log", LOG)
        (folder / "meta" / "info.json").write_text(text)
        return folder

    return make


def lerobot_link(at: Path) -> Path:
    folder = logs.write_lerobot(at / "log", LOG)
    file = folder / "data" / "chunk-000" / "file-001.parquet"
    shutil.move(file, at / "outside.parquet")
    file.symlink_to(at / "outside.parquet")
    return folder


def info_link(at: Path) -> Path:
    folder = logs.write_lerobot(at / "log", LOG)
    shutil.move(folder / "meta" / "info.json", at / "info.json")
    (folder / "meta" / "info.json").symlink_to(at / "info.json")
    return folder


TEMPLATE = "data/{chunk_index.__class__.__mro__}"

LEROBOTS: list[tuple[str, Make, str]] = [
    ("absolute", info(data_path="/etc/{chunk_index}.parquet"), "outside"),
    ("upwards", info(data_path="data/../../{file_index}.parquet"), "outside"),
    ("elsewhere", info(data_path="videos/{file_index}.parquet"), "outside"),
    ("number", info(data_path=3), "outside"),
    ("template", info(data_path=TEMPLATE), ""),
    ("old", info(codebase_version="v1.6"), "v2.1 and v3"),
    ("unnamed", info(codebase_version=None), "v2.1 and v3"),
    ("more-frames", info(total_frames=10**9), "declares"),
    ("odd-frames", info(total_frames="many"), "declares"),
    ("list", text_info("[]"), "must hold an object"),
    ("deep", text_info("[" * 100_000), "no JSON"),
    ("binary", text_info("\x00\x01"), "no JSON"),
    ("link", lerobot_link, "leads out of"),
    ("info-link", info_link, "leads out of"),
]

PLAIN = {"type": "Box", "dtype": "float32", "shape": [3], "low": [0.0] * 3, "high": [1.0] * 3}


def minari(**changes: Any) -> Make:
    """A Minari set with another description."""
    return lambda at: logs.write_minari(
        at / "log", LOG, **{k: v if k in RAW else json.dumps(v) for k, v in changes.items()}
    )


RAW = ("total_episodes", "data_format", "dataset_id", "env_spec")


def space(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, **more}


def deep_space() -> dict[str, Any]:
    found: dict[str, Any] = PLAIN
    for _ in range(200):
        found = space("Tuple", subspaces=[found])
    return found


def inner_link(at: Path) -> Path:
    folder = logs.write_minari(at / "log", LOG)
    file = folder / "data" / "main_data.hdf5"
    shutil.move(file, at / "outside.hdf5")
    file.symlink_to(at / "outside.hdf5")
    return folder


def data_link(at: Path) -> Path:
    """The whole of a set's data is a link to another's."""
    folder = logs.write_minari(at / "log", LOG)
    shutil.move(folder / "data", at / "outside")
    (folder / "data").symlink_to(at / "outside")
    return folder


def episode_link(at: Path, layout: str = "arrow") -> Path:
    folder = logs.write_minari_arrow(at / "log", LOG, layout)
    shutil.move(folder / "data" / "1", at / "outside")
    (folder / "data" / "1").symlink_to(at / "outside")
    return folder


def compressed_arrow(at: Path) -> Path:
    folder = logs.write_minari_arrow(at / "log", LOG)
    zeros = {"observations": np.zeros(10**6)}
    feather.write_feather(
        pa.table(zeros), folder / "data" / "1" / "part-0.arrow", compression="zstd"
    )
    return folder


def lying_offsets(at: Path) -> Path:
    """Lists whose offsets lead far out of their numbers."""
    folder = logs.write_minari_arrow(at / "log", LOG)
    file = folder / "data" / "0" / "part-0.arrow"
    steps = logs.LENGTHS[0] + 1
    whole = pa.ipc.open_file(file.read_bytes()).read_all()
    lists = pa.array([[0.0, 1.0, 2.0]] * steps, type=pa.list_(pa.float32()))
    feather.write_feather(
        whole.set_column(0, "observations", lists), file, compression="uncompressed"
    )
    offsets = np.arange(0, 3 * steps + 1, 3, dtype=np.int32)
    content = file.read_bytes()
    assert content.count(offsets.tobytes()) == 1
    file.write_bytes(content.replace(offsets.tobytes(), (offsets * 2**26).tobytes()))
    return folder


def odd_name(at: Path) -> Path:
    """A column whose name is no text."""
    folder = logs.write_minari_arrow(at / "log", LOG)
    file = folder / "data" / "0" / "part-0.arrow"
    content = file.read_bytes()
    assert b"truncations" in content
    file.write_bytes(content.replace(b"truncations", b"\xff" * 11))
    return folder


def two_files(at: Path) -> Path:
    folder = logs.write_minari_arrow(at / "log", LOG)
    shutil.copy(folder / "data" / "0" / "part-0.arrow", folder / "data" / "0" / "part-1.arrow")
    return folder


def without_group(at: Path) -> Path:
    folder = logs.write_minari(at / "log", LOG)
    with h5py.File(folder / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_2"]
    return folder


def renamed_group(at: Path) -> Path:
    folder = logs.write_minari(at / "log", LOG)
    with h5py.File(folder / "data" / "main_data.hdf5", "r+") as file:
        file.move("episode_2", "episode_9")
    return folder


EVIL = json.dumps({"id": "evil-v0", "entry_point": "deflow_evil:Env", "kwargs": {}})
MARKUP = json.dumps({"id": "[/bold] x"})
EVIL_ID = json.dumps({"id": "deflow_evil:Env-v0", "entry_point": "deflow_evil:Env"})

MINARI: list[tuple[str, Make, str]] = [
    ("entry-point", minari(env_spec=EVIL), ""),
    ("module-in-id", minari(env_spec=EVIL_ID), ""),
    ("env-no-json", minari(env_spec="{" * 10**5), ""),
    ("env-number", minari(env_spec=3), ""),
    ("none", minari(total_episodes=0), "declares 0"),
    ("fewer", minari(total_episodes=3), "holds 4 episodes"),
    ("more", minari(total_episodes=10**30), "holds 4 episodes"),
    ("words", minari(total_episodes="4"), "declares 4"),
    ("layout", minari(data_format="pickle"), "layout"),
    ("id", minari(dataset_id="../../evil\n-v0"), ""),
    ("discrete", minari(action_space=space("Discrete", n=3, start=0)), "Discrete"),
    ("discrete-seen", minari(observation_space=space("Discrete", n=3, start=0)), "Discrete"),
    ("text-space", minari(observation_space=space("Text", charset="a")), "Text"),
    ("no-kind", minari(observation_space=space("__import__")), "__import__"),
    ("wider", minari(observation_space={**PLAIN, "shape": [4]}), "their space"),
    ("no-shape", minari(observation_space={**PLAIN, "shape": "x"}), "shape"),
    ("shape-minus", minari(observation_space={**PLAIN, "shape": [-3, -1]}), "shape"),
    ("shape-huge", minari(observation_space={**PLAIN, "shape": [10**12]}), "their space"),
    ("pictures", minari(observation_space={**PLAIN, "dtype": "uint8", "shape": [9, 9]}), "pict"),
    ("parts", minari(observation_space=space("Dict", subspaces={"a": PLAIN})), "lacks"),
    ("outward", minari(observation_space=space("Dict", subspaces={"../x": PLAIN})), "leaves"),
    ("empty-dict", minari(observation_space=space("Dict", subspaces={})), "empty"),
    ("actions-dict", minari(action_space=space("Dict", subspaces={"a": PLAIN})), "several parts"),
    ("deep", minari(observation_space=deep_space()), "deep"),
    ("bounds", minari(action_space={**PLAIN, "shape": [2]}), "bounds for 3"),
    ("bounds-words", minari(action_space={**PLAIN, "low": ["a"] * 3}), "no numbers"),
    (
        "bounds-swapped",
        minari(action_space={**PLAIN, "shape": [2], "low": [3] * 2, "high": [1] * 2}),
        "below the high",
    ),
    (
        "outside-bounds",
        minari(action_space={**PLAIN, "shape": [2], "low": [0.0] * 2, "high": [0.1] * 2}),
        "in their bounds",
    ),
    ("link", inner_link, "leads out of"),
    ("data-link", data_link, "leads out of"),
    ("episode-link", episode_link, "leads out of"),
    ("episode-link-parquet", lambda at: episode_link(at, "parquet"), "leads out of"),
    ("markup", minari(env_spec=MARKUP), ""),
    ("group-gone", without_group, "holds 3 episodes"),
    ("group-renamed", renamed_group, "episode_2"),
    ("compressed", compressed_arrow, "compressed"),
    ("offsets", lying_offsets, "damaged"),
    ("odd-name", odd_name, "damaged"),
    ("two-files", two_files, "holds 2 files"),
]

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
def test_hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make, words: str) -> None:
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
