"""HDF5 files as recorders and attackers leave them: open elsewhere, led elsewhere, odd types."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from deflow.core.errors import DeFlowError
from deflow.data.hdf5 import read_hdf5
from deflow.data.npz import read_npz
from deflow.data.readers.hdf5 import dataset_names


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "set.hdf5"


def refused(path: Path, words: str) -> None:
    with pytest.raises(DeFlowError, match=words) as raised:
        read_hdf5(path)
    assert "\n" not in str(raised.value)


# Files that lead elsewhere ---------------------------------------------------------------------

READ = "import sys; from deflow.data.own import load_own; load_own(sys.argv[1], sys.argv[2:])"
PEEK = "import sys, pathlib; from deflow.data.peek import holds_frames as held; {call}".format(
    call="assert not held(pathlib.Path(sys.argv[1]))"
)


@pytest.mark.parametrize("code", [READ, PEEK])
def test_the_files_of_a_virtual_dataset_are_not_opened(code: str, path: Path) -> None:
    """Its source is a pipe, at which whoever opens it waits for ever."""
    pipe = path.with_name("pipe")
    os.mkfifo(pipe)
    endless = h5py.h5s.UNLIMITED
    with h5py.File(path, "w", libver="latest") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        here, there = (h5py.h5s.create_simple((4,), (endless,)) for _ in range(2))
        for space in (here, there):
            space.select_hyperslab((0,), (1,), block=(endless,))
        plist.set_virtual(here, str(pipe).encode(), b"x", there)
        space = h5py.h5s.create_simple((4,), (endless,))
        h5py.h5d.create(file.id, b"observations", h5py.h5t.NATIVE_FLOAT, space, plist)
        file["actions"] = np.zeros((4, 2))
        file["rewards"], file["terminals"] = np.zeros(4), np.zeros(4, bool)
    words = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(words, timeout=60, capture_output=True, text=True, check=False)
    if code is READ:
        assert "keeps its numbers in other files" in done.stderr
    else:
        assert done.returncode == 0, done.stderr


# Files of recorders ----------------------------------------------------------------------------


def test_a_file_that_is_still_open_elsewhere_is_said_to_be(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["a"] = np.arange(4.0)
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'a'); print(flush=True); sys.stdin.read()"
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        refused(path, "still open in the program that writes it")
        writer.kill()
    np.testing.assert_array_equal(read_hdf5(path)["a"], np.arange(4.0))


def test_a_file_that_a_dead_program_left_open_is_said_to_be(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file["a"] = np.arange(4.0)
        file.swmr_mode = True
        file.flush()
        left = path.read_bytes()
    path.write_bytes(left)
    refused(path, "was not closed there")


def test_no_one_is_told_to_delete_a_file(path: Path) -> None:
    for content in (b"", b"noise" * 100):
        path.write_bytes(content)
        for read in (read_hdf5, read_npz):
            with pytest.raises(DeFlowError, match="in its place") as raised:
                read(path)
            assert "delete" not in str(raised.value).removeprefix(str(path))


def test_bit_fields_are_numbers(path: Path) -> None:
    """As PyTables keeps booleans."""
    with h5py.File(path, "w") as file:
        kind, space = h5py.h5t.STD_B8LE, h5py.h5s.create_simple((4,))
        flags = h5py.h5d.create(file.id, b"a", kind, space)
        flags.write(h5py.h5s.ALL, h5py.h5s.ALL, np.uint8([1, 0, 0, 1]), kind)
    np.testing.assert_array_equal(read_hdf5(path)["a"], [1, 0, 0, 1])


def test_text_of_a_fixed_length_is_read_by_its_name(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["run"] = np.asarray(["a", "bcde"], "S4")
    assert read_hdf5(path) == {}
    assert read_hdf5(path, wanted=["run"])["run"].tolist() == [b"a", b"bcde"]


def test_a_dataset_with_two_names_has_both(tmp_path: Path):
    path = tmp_path / "linked.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"] = np.zeros((3, 2))
        file["a/obs"] = file["observations"]
    assert dataset_names(path) == ["a/obs", "observations"]
