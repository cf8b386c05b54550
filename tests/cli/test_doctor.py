from __future__ import annotations

import json
from pathlib import Path

import jax
import pytest

from deflow.cli import doctor
from deflow.cli.doctor import Doctor, Finding


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "NETWORK_SECONDS", 0.01)


def test_the_document_covers_every_group(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("some-play-v0", "some-play-v0-val", "half-play-v0"):
        (tmp_path / f"{name}.npz").touch()
    (tmp_path / "pen-human-v1.hdf5").touch()
    assert Doctor(data_dir=tmp_path, json=True).run() == 0
    document = json.loads(capsys.readouterr().out)
    assert document["missing"] == []
    found = {(f["group"], f["name"]): f for f in document["findings"]}
    assert {group for group, _ in found} == {"versions", "devices", "rendering", "data", "network"}
    assert found["data", "sets"]["value"] == "pen-human-v1, some-play-v0"
    assert found["data", "writable"]["good"]
    assert found["devices", "computing"]["value"].startswith("cpu:0")
    assert all(f["good"] or f["hint"] for f in found.values())


def test_the_screen_is_one_screen(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert Doctor(data_dir=tmp_path).run() == 0
    screen = capsys.readouterr().out
    assert len(screen.splitlines()) <= 40
    assert "deflow data generate" in screen


def test_a_missing_package_is_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "NEEDED", ("numpy", "no-such-package"))
    assert Doctor(data_dir=tmp_path, json=True).run() == 1
    assert json.loads(capsys.readouterr().out)["missing"] == ["no-such-package"]


@pytest.mark.parametrize("error", [ImportError("no module named x"), PermissionError("no x")])
def test_a_look_that_cannot_be_taken_is_said(error: Exception) -> None:
    def broken() -> list[Finding]:
        raise error

    (finding,) = doctor._looked("rendering", broken)
    assert not finding.good
    assert str(error) in finding.value


def test_a_device_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> list[jax.Device]:
        raise AssertionError  # Which JAX raises with JAX_PLATFORMS=cuda and no GPU.

    monkeypatch.setattr(jax, "devices", absent)
    computing = doctor.devices()[0]
    assert not computing.good
    assert "JAX_PLATFORMS=cpu" in computing.hint


def test_huge_pages_are_spoken_of_where_they_must_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    kernel = tmp_path / "enabled"
    monkeypatch.setattr(doctor, "HUGE_PAGES", kernel)
    assert doctor._huge_pages() == []
    kernel.write_text("[always] madvise never\n")
    assert doctor._huge_pages() == []
    kernel.write_text("always [madvise] never\n")
    (found,) = doctor._huge_pages()
    assert "GLIBC_TUNABLES=glibc.malloc.hugetlb=1" in found.hint
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    (found,) = doctor._huge_pages()
    assert found.hint
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    (found,) = doctor._huge_pages()
    assert (found.value, found.hint) == ("asked for", "")


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = {f.name: f for f in doctor.data(tmp_path / "file" / "below")}
    assert not found["writable"].good
    assert not (tmp_path / "new").exists()
    assert {f.name: f for f in doctor.data(tmp_path / "new")}["writable"].good
    assert not (tmp_path / "new").exists(), "looking makes nothing"
