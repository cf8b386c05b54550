"""Hostile Parquet files and LeRobot folders: what makes each, and the words of its error."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.data import logs
from tests.data.logs import ROWS, Make

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

LOG = logs.episodes()


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


def lerobot_without_rows(at: Path) -> Path:
    folder = logs.write_lerobot(at / "log", LOG)
    for file in (folder / "data" / "chunk-000").iterdir():
        pq.write_table(pq.read_table(file).slice(0, 0), file)
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
    ("rows-none", lerobot_without_rows, "is empty"),
]
