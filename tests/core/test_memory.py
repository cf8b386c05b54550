"""What may still be taken: the machine's own account, or less where a container allows less."""

from __future__ import annotations

from pathlib import Path

import pytest

from deflow.core import memory

V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
HUGE = 9223372036854771712
"""What version 1 says where there is no limit."""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_MEMBERSHIP", tmp_path / "membership")
    return tmp_path


def belong(root: Path, lines: str) -> None:
    (root / "membership").write_text(lines)


def group(folder: Path, files: tuple[str, str, str], limit: object, used: int, cache: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / files[0]).write_text(f"{limit}\n")
    (folder / files[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{files[2]} {cache}\nactive_file 7\n")


def test_no_container_limits_nothing(root: Path) -> None:
    free = memory.available_memory()  # There is neither a membership nor a folder.
    assert free > 1 << 27
    belong(root, "0::/\n")
    (root / "cgroup").mkdir()
    group(root / "cgroup", V2, "max", 10, 0)
    assert memory.available_memory() > 1 << 27


@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_limit_holds(root: Path, version: int) -> None:
    files, base = (V1, root / "cgroup" / "memory") if version == 1 else (V2, root / "cgroup")
    belong(root, "9:cpu:/\n4:memory:/docker/x\n0::/\n" if version == 1 else "0::/\n")
    group(base, files, 5000, 1200, 0)
    assert memory.available_memory() == 3800
    group(base, files, 5000, 1200, 300)  # Files that are kept in passing make room when asked.
    assert memory.available_memory() == 4100
    group(base, files, 5000, 6000, 0)
    assert memory.available_memory() == 0
    group(base, files, HUGE, 6000, 0)
    assert memory.available_memory() > 1 << 27
    (base / files[0]).write_text("much\n")
    assert memory.available_memory() > 1 << 27


def test_the_tightest_group_above_holds(root: Path) -> None:
    belong(root, "0::/batch/job_7/step\n")
    group(root / "cgroup" / "batch" / "job_7" / "step", V2, "max", 100, 0)
    group(root / "cgroup" / "batch" / "job_7", V2, 900, 100, 0)
    group(root / "cgroup" / "batch", V2, 5000, 4500, 0)
    assert memory.available_memory() == 500
    group(root, V2, 1, 0, 0)  # Outside the tree of groups.
    assert memory.available_memory() == 500
