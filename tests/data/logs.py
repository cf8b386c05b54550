"""A small robot log, written in every format in which a user may bring it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deflow.data.dataset import Dataset

Episode = dict[str, Any]
Arrays = dict[str, Any]

LENGTHS = (5, 3, 12, 4)
ROWS = sum(LENGTHS)

Make = Callable[[Path], Path]
"""Writes a file or folder into an empty folder and returns its path."""


def episodes(lengths: Sequence[int] = LENGTHS, seed: int = 0) -> list[Episode]:
    """T+1 observations of 3 numbers for T actions of 2, every other episode terminated."""
    rng = np.random.default_rng(seed)
    return [
        {
            "observations": rng.normal(size=(length + 1, 3)).astype(np.float32),
            "actions": rng.uniform(-1, 1, size=(length, 2)).astype(np.float32),
            "rewards": rng.normal(size=length).astype(np.float32),
            "terminations": np.arange(length) == (length - 1 if index % 2 else length),
            "truncations": np.arange(length) == (length if index % 2 else length - 1),
        }
        for index, length in enumerate(lengths)
    ]


def flat(log: list[Episode]) -> Arrays:
    """The log as `Dataset.from_arrays` takes it."""
    return {
        "observations": np.concatenate([e["observations"][:-1] for e in log]),
        "next_observations": np.concatenate([e["observations"][1:] for e in log]),
        "actions": np.concatenate([e["actions"] for e in log]),
        "rewards": np.concatenate([e["rewards"] for e in log]),
        "terminals": np.concatenate([e["terminations"] for e in log]),
        "timeouts": np.concatenate([e["truncations"] for e in log]),
    }


def expected(log: list[Episode]) -> str:
    """The fingerprint of the log, read well."""
    return Dataset.from_arrays(**flat(log)).fingerprint()


def write_npz(path: Path, log: list[Episode]) -> Path:
    np.savez_compressed(path, **flat(log))
    return path


def write_flat_hdf5(path: Path, log: list[Episode]) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        for name, array in flat(log).items():
            file.create_dataset(name, data=array, compression="gzip")
    return path


def write_grouped_hdf5(path: Path, log: list[Episode], prefix: str = "data/demo_") -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        for index, episode in enumerate(log):
            for name, array in episode.items():
                file.create_dataset(f"{prefix}{index}/{name}", data=array)
    return path


def table(log: list[Episode], **more: Any) -> Any:
    """The log as an Arrow table with columns of lists and an episode column."""
    import pyarrow as pa

    columns = {
        name: pa.array(list(array)) if array.ndim == 2 else pa.array(array)
        for name, array in flat(log).items()
    }
    lengths = [len(episode["actions"]) for episode in log]
    columns["episode"] = pa.array(np.repeat(np.arange(len(log)), lengths))
    return pa.table({**columns, **more})


def write_parquet(path: Path, log: list[Episode]) -> Path:
    import pyarrow.parquet as pq

    pq.write_table(table(log), path)
    return path


def write_lerobot(folder: Path, log: list[Episode], *, version: str = "v3.0") -> Path:
    """State and action columns, several files, and what LeRobot keeps beside them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    chunk = folder / "data" / "chunk-000"
    chunk.mkdir(parents=True)
    (folder / "meta").mkdir()
    for index, episode in enumerate(log):
        length = len(episode["actions"])
        columns = {
            "observation.state": pa.array(list(episode["observations"][:-1])),
            "action": pa.array(list(episode["actions"]), type=pa.list_(pa.float32(), 2)),
            "episode_index": pa.array(np.full(length, index)),
            "frame_index": pa.array(np.arange(length)),
            "timestamp": pa.array(np.arange(length, dtype=np.float32) / 30),
            "next.done": pa.array(np.arange(length) == length - 1),
            "task": pa.array(["push"] * length),
        }
        name = f"file-{index:03d}" if version.startswith("v3") else f"episode_{index:06d}"
        pq.write_table(pa.table(columns), chunk / f"{name}.parquet")
    place = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    info = {
        "codebase_version": version,
        "total_episodes": len(log),
        "total_frames": sum(len(episode["actions"]) for episode in log),
        "fps": 30,
        "data_path": place,
    }
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    return folder


def write_minari(folder: Path, log: list[Episode], **more: Any) -> Path:
    """A Minari set in its HDF5 layout, its actions in [-1, 1]."""
    (folder / "data").mkdir(parents=True)
    write_grouped_hdf5(folder / "data" / "main_data.hdf5", log, prefix="episode_")
    box = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-1.0] * 2, "high": [1.0] * 2}
    seen = {**box, "shape": [3], "low": [-float("inf")] * 3, "high": [float("inf")] * 3}
    metadata = {
        "dataset_id": "toy/log-v0",
        "minari_version": "0.5.4",
        "data_format": "hdf5",
        "total_episodes": len(log),
        "observation_space": json.dumps(seen),
        "action_space": json.dumps(box),
        **more,
    }
    (folder / "data" / "metadata.json").write_text(json.dumps(metadata))
    return folder


def write_minari_arrow(
    folder: Path, log: list[Episode], layout: str = "arrow", **more: Any
) -> Path:
    """The same in its Arrow or Parquet layout: a folder per episode, actions filled up."""
    import pyarrow as pa
    import pyarrow.feather as feather
    import pyarrow.parquet as pq

    write_minari(folder, log, data_format=layout, **more)
    (folder / "data" / "main_data.hdf5").unlink()
    for index, episode in enumerate(log):
        columns = {
            "observations": pa.FixedSizeListArray.from_arrays(
                episode["observations"].reshape(-1), 3
            ),
            "actions": pa.FixedSizeListArray.from_arrays(
                np.pad(episode["actions"], ((0, 1), (0, 0))).reshape(-1), 2
            ),
            **{
                name: pa.array(np.pad(episode[name], (0, 1)))
                for name in ("rewards", "terminations", "truncations")
            },
        }
        place = folder / "data" / str(index)
        place.mkdir()
        if layout == "arrow":
            feather.write_feather(
                pa.table(columns), place / "part-0.arrow", compression="uncompressed"
            )
        else:
            pq.write_table(pa.table(columns), place / "part-0.parquet")
    return folder
