"""Hostile Minari sets: what makes each, and the words of its error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data import logs
from tests.data.logs import Make

h5py = pytest.importorskip("h5py")
pa = pytest.importorskip("pyarrow")
feather = pytest.importorskip("pyarrow.feather")

LOG = logs.episodes()


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


def hidden_batch(at: Path) -> Path:
    """A compressed batch behind the stream's end, to which only the footer leads."""
    folder = logs.write_minari_arrow(at / "log", LOG)
    file = folder / "data" / "1" / "part-0.arrow"
    table = pa.table({"observations": np.zeros(10**6)})
    feather.write_feather(table, file, compression="zstd", chunksize=10**6)
    content = file.read_bytes()
    begin = content.index(b"ARROW1") + 8 + table.schema.serialize().size
    offset = begin.to_bytes(8, "little")
    footer = content.rindex(offset)
    assert footer > begin
    hidden = content[:begin] + b"\xff" * 4 + bytes(4) + content[begin:footer]
    file.write_bytes(hidden + (begin + 8).to_bytes(8, "little") + content[footer + 8 :])
    assert pa.ipc.open_file(file.read_bytes()).read_all().equals(table)
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
LARGE = json.dumps({"id": "CartPole-v1", "kwargs": {"x": 10**400}, "max_episode_steps": 10**400})
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
    ("shape-huge", minari(observation_space={**PLAIN, "shape": [10**12]}), "none of a box"),
    ("shape-digits", minari(observation_space={**PLAIN, "shape": [10**4000] * 2}), "none of a box"),
    ("shape-product", minari(observation_space={**PLAIN, "shape": [2**31] * 2}), "too large"),
    ("shape-sides", minari(observation_space={**PLAIN, "shape": [1] * 10**5}), "none of a box"),
    ("bounds-huge", minari(action_space={**PLAIN, "low": [-(10**400)] * 3}), "no numbers"),
    ("env-large", minari(env_spec=LARGE), ""),
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
    ("hidden-batch", hidden_batch, "footer counts other batches"),
    ("offsets", lying_offsets, "damaged"),
    ("odd-name", odd_name, "damaged"),
    ("two-files", two_files, "holds 2 files"),
]
