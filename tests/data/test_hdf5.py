"""Reading HDF5: what was written comes back, and whatever else is one sentence."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from deflow.core.errors import DeFlowError
from deflow.data import guards, hdf5
from deflow.data.hdf5 import read_hdf5

NUMBERS = st.sampled_from(
    [np.dtype(t) for t in ("f4", "f8", "f2", "i1", "i8", "u1", "u4", "?", ">f4", ">i2")]
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "set.hdf5"


def refused(path: Path, words: str, **options: Any) -> None:
    before = {p: p.read_bytes() for p in path.parent.rglob("*") if p.is_file()}
    with pytest.raises(DeFlowError, match=words) as raised:
        read_hdf5(path, **options)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)
    assert {p: p.read_bytes() for p in path.parent.rglob("*") if p.is_file()} == before


@given(
    data=st.data(),
    storage=st.sampled_from(
        [{}, {"compression": "gzip"}, {"compression": "lzf"}, {"shuffle": True}, {"fletcher32": 1}]
    ),
)
def test_what_was_written_comes_back(
    data: st.DataObject, storage: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "set.hdf5"
    names = data.draw(st.sets(st.sampled_from(["a", "infos/qpos", "infos/deep/x"]), min_size=1))
    written = {}
    with h5py.File(path, "w") as file:
        for name in names:
            shape = arrays_of.array_shapes(max_dims=2, max_side=5)
            written[name] = data.draw(arrays_of.arrays(NUMBERS, shape))
            file.create_dataset(name, data=written[name], **storage)
    read = read_hdf5(path, required=sorted(names))
    assert read.keys() == written.keys()
    for name, array in written.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_only_what_is_wanted_is_read_and_judged(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["observations"] = np.eye(3)
        file["scalar"] = 2.5
        file["none"] = np.zeros((0, 4))
        file["metadata/algorithm"] = "SAC"
    everything = read_hdf5(path)
    assert everything.keys() == {"observations", "scalar", "none"}
    assert everything["scalar"] == 2.5
    assert everything["none"].shape == (0, 4)
    with h5py.File(path, "a") as file:
        file["objects"] = np.zeros(3, [("a", "f4"), ("b", "i4")])
    refused(path, "'objects' holds no plain numbers")
    assert read_hdf5(path, wanted=("observations", "absent")).keys() == {"observations"}
    assert read_hdf5(path, wanted=(), required=["scalar"]).keys() == {"scalar"}
    refused(path, r"lacks rewards, terminals \(it holds", required=["rewards", "terminals"])
    refused(path, "'metadata/algorithm' holds text of any length", wanted=["metadata/algorithm"])


def test_what_is_no_hdf5_file_is_said(path: Path) -> None:
    refused(path, "There is no file")
    refused(path.parent, "There is no file")
    path.touch()
    refused(path, "is empty")
    path.write_bytes(b"observations,actions\n1,2\n" * 100)
    refused(path, "no HDF5 file")


@pytest.mark.parametrize("kept", [8, 100, 1000, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_said(kept: float, path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.random.default_rng(0).random(5000), compression="gzip")
    raw = path.read_bytes()
    path.write_bytes(raw[: kept if isinstance(kept, int) else int(kept * len(raw))])
    refused(path, "truncated, damaged or no HDF5 file")


def test_broken_compression_is_said(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.random.default_rng(0).random(5000), compression="gzip")
        place = file["a"].id.get_chunk_info(0).byte_offset
    raw = bytearray(path.read_bytes())
    raw[place + 100 : place + 200] = bytes(100)
    path.write_bytes(raw)
    refused(path, "truncated, damaged")


def external_storage(file: h5py.File, folder: Path) -> None:
    np.arange(8.0).tofile(folder / "secret")
    file.create_dataset("a", (8,), "f8", external=[(str(folder / "secret"), 0, 64)])


def virtual(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.hdf5", "w") as other:
        other["x"] = np.arange(4.0)
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource(str(folder / "other.hdf5"), "x", (4,))
    file.create_virtual_dataset("a", layout)


def external_link(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.hdf5", "w") as other:
        other["x"] = np.arange(4.0)
    file["a"] = h5py.ExternalLink("other.hdf5", "/x")


def soft_link(file: h5py.File, folder: Path) -> None:
    file["here"] = np.arange(4.0)
    file["a"] = h5py.SoftLink("/here")


def circle(file: h5py.File, folder: Path) -> None:
    file["group/a"] = np.arange(4.0)
    file["group/again"] = file["group"]


def foreign_filter(file: h5py.File, folder: Path) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((4,))
    plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(file.id, b"a", h5py.h5t.NATIVE_DOUBLE, space, plist)


HOSTILE: list[tuple[Callable[[h5py.File, Path], Any], str]] = [
    (external_storage, "keeps its numbers in other files"),
    (virtual, "keeps its numbers in other files"),
    (external_link, "'a' is a link to elsewhere"),
    (soft_link, "'a' is a link to elsewhere"),
    (lambda file, _: file.update({"x": h5py.SoftLink("/nowhere")}), "'x' is a link to elsewhere"),
    (circle, "linked twice"),
    (foreign_filter, "compressed in a way that is not read here .filter 32015"),
    (lambda file, _: file.create_dataset("a", (1 << 50, 4), "f8", chunks=(8, 4)), "declares"),
    (lambda file, _: file.create_dataset("a", (1 << 62, 1 << 62), "f8", chunks=(8, 4)), "declares"),
    (lambda file, _: file.create_dataset("a", (4,), h5py.vlen_dtype("f4")), "no plain numbers"),
    (lambda file, _: file.create_dataset("a", (4,), h5py.ref_dtype), "no plain numbers"),
    (lambda file, _: file.create_dataset("a", (4,), h5py.regionref_dtype), "no plain numbers"),
    (lambda file, _: file.create_dataset("a", (4,), "c8"), "no plain numbers"),
    (lambda file, _: file.create_dataset("a", (4,), "V7"), "no plain numbers"),
    (lambda file, _: file.create_dataset("a", (4,), np.dtype(("f4", 3))), "no plain numbers"),
    (lambda file, _: file.create_dataset("a", dtype="f4", data=h5py.Empty("f4")), "nothing at all"),
]


@pytest.mark.parametrize(("make", "words"), HOSTILE)
def test_what_could_do_harm_is_refused_unread(
    make: Callable[[h5py.File, Path], Any], words: str, path: Path
) -> None:
    with h5py.File(path, "w") as file:
        file["sound"] = np.arange(4.0)
        make(file, path.parent)
    refused(path, words)


@pytest.mark.parametrize("name", [b"..", b"a\\b"])
def test_a_name_that_leaves_the_data_is_refused(name: bytes, path: Path) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("infos")
        space, kind = h5py.h5s.create_simple((4,)), h5py.h5t.NATIVE_DOUBLE
        h5py.h5d.create(group.id, name, kind, space)
    refused(path, "a name that leaves the data")


def bomb(path: Path, inflated: int, mask: int = 0, **storage: Any) -> None:
    """A chunk that declares eight bytes and inflates to many."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset("a", (8,), "u1", chunks=(8,), compression="gzip", **storage)
        data.id.write_direct_chunk((0,), zlib.compress(bytes(inflated), 9), mask)


def test_a_chunk_that_inflates_beyond_its_size_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb(path, 100 << 20)
    refused(path, "more than it declares")
    bomb(path, 40 << 20)
    monkeypatch.setattr(hdf5, "available_memory", lambda: 64 << 20)
    refused(path, "more than it declares")
    # The first bit of a mask is the shuffle that stands before deflate, the second deflate itself.
    bomb(path, 40 << 20, mask=1, shuffle=True)
    refused(path, "more than it declares")
    bomb(path, 40 << 20, mask=2, shuffle=True)  # Its bytes are taken as they are, and are too few.
    assert read_hdf5(path)["a"].nbytes == 8


def test_what_is_undone_before_it_is_inflated_is_refused(path: Path) -> None:
    """Bytes that were shuffled after deflate are not those that will be inflated."""
    for later, kept in ((h5py.h5z.FILTER_SHUFFLE, False), (h5py.h5z.FILTER_FLETCHER32, True)):
        with h5py.File(path, "w") as file:
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_chunk((4,))
            plist.set_deflate(9)
            plist.set_filter(later)
            space, kind = h5py.h5s.create_simple((4,)), h5py.h5t.NATIVE_DOUBLE
            h5py.h5d.create(file.id, b"a", kind, space, plist)
            file["a"][:] = np.arange(4.0)
        if kept:
            np.testing.assert_array_equal(read_hdf5(path)["a"], np.arange(4.0))
        else:
            refused(path, r"compressed in a way that is not read here .filter 1, 2")


def test_a_chunk_counts_as_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (1,), "i1", chunks=(1 << 31,), maxshape=(None,))
    monkeypatch.setattr(guards, "available_memory", lambda: 1 << 30)
    refused(path, "declares 2.0 GiB")


def test_a_deflated_set_is_read_where_memory_is_tight(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8)
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=noise, chunks=(1 << 19,), compression="gzip")
    for module in (guards, hdf5):
        monkeypatch.setattr(module, "available_memory", lambda: 8 << 20)
    np.testing.assert_array_equal(read_hdf5(path)["a"], noise)
    monkeypatch.setattr(guards, "available_memory", lambda: 2 << 20)
    refused(path, "declares")


def test_flipped_bytes_end_in_one_sentence_or_in_numbers(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["observations"] = np.zeros((20, 3))
        file.create_dataset("infos/x", data=np.ones(50), compression="gzip")
    raw = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(raw)
        place = int(rng.integers(len(raw)))
        damaged[place : place + 4] = struct.pack("<I", int(rng.integers(1 << 32)))
        path.write_bytes(damaged)
        try:
            arrays = read_hdf5(path)
        except DeFlowError:
            continue
        assert all(array.dtype.kind in "fiub" for array in arrays.values())


def test_a_long_read_shows_its_progress(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(path, "w") as file:
        file["a"] = np.arange(4.0)
    shown: list[Any] = []
    bar = hdf5.progress_bar

    def watched(**options: Any) -> Any:
        shown.append(bar(**options))
        return shown[-1]

    monkeypatch.setattr(hdf5, "progress_bar", watched)
    read_hdf5(path)
    assert not shown
    monkeypatch.setattr(hdf5, "_SLOW", 0)
    np.testing.assert_array_equal(read_hdf5(path)["a"], np.arange(4.0))
    assert shown[0].finished
    odd = path.with_name("[bold].hdf5")
    path.rename(odd)
    read_hdf5(odd)
    assert shown[1].tasks[0].description == "[bold].hdf5, MiB"
