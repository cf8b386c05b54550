"""Hostile .npz files: what makes each, and the words of its error."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from tests.data import logs
from tests.data.logs import ROWS, Make

LOG = logs.episodes()


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


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
