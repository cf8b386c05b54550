"""The words of `deflow data inspect`: each number is called what it is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tyro
from tests.data import logs

from deflow.cli.data import Inspect


def shown(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The table's text, without its lines."""
    assert tyro.cli(Inspect, args=list(args)).run() == 0
    return " ".join(capsys.readouterr().out.replace("\u2502", " ").split())


def test_terminations_rows_and_small_memory_are_called_what_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    log = logs.flat(logs.episodes((30, 20, 10)))
    del log["next_observations"]
    path = tmp_path / "log.npz"
    np.savez(path, allow_pickle=False, **log)
    text = shown(capsys, str(path))
    assert "terminations 1 rows in 1 episodes" in text
    assert "success" not in text
    assert "58 of 60 rows; 2 end a trajectory that was cut" in text
    assert re.search(r"memory [0-9]\.[0-9] kB", text)
    h5py = pytest.importorskip("h5py")
    for name, word in (("hopper-medium-v2", "terminations"), ("antmaze-umaze-v2", "success")):
        with h5py.File(tmp_path / f"{name}.hdf5", "w") as file:
            file["observations"], file["actions"] = np.eye(40, 4), np.zeros((40, 2))
            file["rewards"], file["terminals"] = np.arange(40.0), np.arange(40) == 20
        text = shown(capsys, name, "--data-dir", str(tmp_path))
        assert f"{word} 1 rows in 1 episodes" in text
