"""Hostile HDF5 files: what makes each, and the words of its error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data import logs
from tests.data.logs import ROWS, Make

h5py = pytest.importorskip("h5py")

LOG = logs.episodes()


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


def calibration_beside(file: Any) -> None:
    """Data that no column is named after."""
    file["data/calibration/gains"] = np.eye(3)


def many_digits(file: Any) -> None:
    """A number that Python converts to no integer."""
    file.move("data/demo_3", f"data/demo_{'9' * 5000}")


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
    ("calibration-beside", grouped(calibration_beside), ""),
    ("many-digits", grouped(many_digits), ""),
    ("text", instead("rewards", lambda f: f.__setitem__("rewards", np.full(ROWS, b"a"))), "text"),
]
