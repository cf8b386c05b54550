"""`deflow evaluate --off-policy`: the table, the document, and what does not go together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deflow.cli import main
from deflow.cli.evaluate import _print_off_policy
from deflow.data.transforms import Transforms
from deflow.training.run_folder import RunFolder

Printed = Callable[..., Any]


@pytest.mark.slow
def test_a_run_is_judged_by_its_own_file(
    finished: Path, file: Path, printed: Printed, capsys: pytest.CaptureFixture[str]
):
    words = ("evaluate", finished, "--off-policy", "--fqe-steps", 2, "--data", file)
    document = printed(*words, "--json")
    assert [member["member"] for member in document["members"]] == ["seed0", "seed1"]
    assert document["fqe"]["steps"] == 2
    assert document["held_out"]["episodes"] == 5
    assert printed(*words, "--json", "--held-out", 0.5)["held_out"]["episodes"] == 12
    assert main.run([str(word) for word in words]) == 0
    out = capsys.readouterr().out
    for part in ("finished, seed1", "value of the policy", "flow loss", "rank correlation"):
        assert part in out
    assert "5 of 24 episodes" in " ".join(out.split())
    assert "100% of its way" in " ".join(out.split())
    assert document["fqe"]["unsettled"] == pytest.approx(0.999)


def test_what_does_not_go_together_is_said(finished: Path, refused: Callable[..., str]):
    words = ("evaluate", finished, "--off-policy")
    assert "give them again, with --data FILE" in refused(*words)
    assert "fqe_steps must be at least 1" in refused(*words, "--fqe-steps", 0)


def test_the_units_of_values_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = RunFolder(tmp_path)
    held = SimpleNamespace(
        to_json=lambda: dict.fromkeys(
            ("source", "episodes", "transitions", "fitted_transitions"), 1
        )
    )
    found: Any = SimpleNamespace(folder=folder, members=[], held_out=held, steps=1, unsettled=0.0)
    for scale, said in ((1.0, False), (0.5, True)):
        units = Transforms(reward_scale=scale).to_json()
        folder.write_json("conversion.json", {"transforms": units})
        _print_off_policy(found)
        out = capsys.readouterr().out
        assert ("(r +0) times 0.5" in out) is said
        assert "of its way" not in out
