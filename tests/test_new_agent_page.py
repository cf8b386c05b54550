"""The worked example of docs/new_agent.md trains as the page says, and is as short as it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests import toy

import deflow
from deflow.agents.registry import agent_class
from deflow.core.errors import DeFlowError

PAGE = Path(__file__).parent.parent / "docs" / "new_agent.md"


def example() -> str:
    """The page's module."""
    code: str = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    return code


def test_the_example_trains_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = example()
    assert len(code.splitlines()) < 60
    (tmp_path / "better_half.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "better_half", raising=False)
    agent = agent_class("better_half:BetterHalf")(hidden=(16, 16), batch_size=16)
    options = {**toy.SHORT, "over": {"margin": (0.0, 0.1)}}
    run = deflow.train("toy", agent, dataset=toy.dataset(), run_dir=tmp_path / "run", **options)
    assert run.config().agent == agent
    assert {line["member"] for line in run.read_lines(run.metrics)} == {
        f"seed{seed}-margin{margin}" for seed in (0, 1) for margin in ("0", "0.1")
    }
    assert "actor/kept" in run.read_lines(run.metrics)[-1]
    deflow.resume(run.path, dataset=toy.dataset())


def test_an_agent_that_cannot_be_imported_is_named():
    with pytest.raises(DeFlowError, match="should be an agent, was not found"):
        agent_class("no_such_module:Agent")
    with pytest.raises(DeFlowError, match=r"no class of deflow\.Agent"):
        agent_class("pathlib:Path")


def test_a_shell_finds_an_agent_in_its_own_folder(tmp_path: Path):
    """A command does not search the current folder by itself."""
    (tmp_path / "better_half.py").write_text(example())
    deflow_command = str(Path(sys.executable).parent / "deflow")
    line = [deflow_command, "agents", "better_half:BetterHalf", "--json"]
    shown = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    margin = next(s for s in json.loads(shown)["settings"] if s["name"] == "margin")
    assert margin["sweep"]
    assert margin["meaning"]
