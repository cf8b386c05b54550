"""The worked example of docs/new_agent.md trains, and is taken up, as the page says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests import toy
from tests.training.runs import arrays
from tests.training.test_resume import Stop, stop_at

import deflow
from deflow.agents.registry import agent_class
from deflow.core.errors import DeFlowError
from deflow.training.trainer import Trainer

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

    with monkeypatch.context() as patch:
        stop_at(patch, Trainer, "_chunk", 2)
        with pytest.raises(Stop):
            deflow.train("toy", agent, dataset=toy.dataset(), run_dir=tmp_path / "cut", **options)
    again = arrays(deflow.resume(tmp_path / "cut", dataset=toy.dataset()))
    for name, array in arrays(run).items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


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
