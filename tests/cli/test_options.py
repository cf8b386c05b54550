"""Options that would change nothing, and when they count as given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tyro

from deflow.cli.compare import Compare
from deflow.cli.options import refuse_given
from deflow.cli.train import Train
from deflow.core.errors import DeFlowError

Refused = Callable[..., str]
PEN = "pen-human-v1"


def test_steps_are_refused_only_where_no_agent_takes_them(refused: Refused):
    words = (PEN, "--online-steps", "20000", "--steps", "7", "--agents", "rlpd")
    command = tyro.cli(Compare, args=[*words, "fql"])
    command.check_given(command.configs(Path("nowhere")).values())
    assert "--steps is for learning before the run goes online" in refused("compare", *words)
    heard = refused("compare", *words, "fql", "--budget-steps", "rlpd=7")
    assert "--budget-steps is not for rlpd, which learns online alone" in heard


def test_an_option_counts_as_given_where_it_differs_from_what_the_command_began_with():
    saved = Train(task="mine", updates_per_step=3)
    with pytest.raises(DeFlowError, match=r"^--updates-per-step is for that\.$"):
        refuse_given(saved, ("overwrite", "updates_per_step"), "that")
    refuse_given(saved, ("overwrite", "updates_per_step"), "that", began=saved)
