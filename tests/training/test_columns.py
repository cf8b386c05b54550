"""An agent that asks for what the data lack is refused before anything is written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tests import toy

from deflow import DeFlow, DeFlowError, train
from deflow.core.agent import Phase
from deflow.core.types import Spec
from deflow.data.columns import require_column
from deflow.data.dataset import Dataset


class Demanding(DeFlow):
    """DeFlow that wants the weather beside each row, in every phase."""

    def phases(self, spec: Spec, schedule: str) -> tuple[Phase, ...]:
        phases = super().phases(spec, schedule)
        return tuple(dataclasses.replace(p, fields=(*p.fields, "weather")) for p in phases)


@pytest.mark.parametrize("schedule", DeFlow.schedules)
def test_a_column_that_the_data_lack_is_named_and_nothing_is_written(
    data: Dataset, tmp_path: Path, schedule: str
):
    path = tmp_path / "it"
    with pytest.raises(DeFlowError, match=r"toy has no column 'weather'.*next_actions") as refusal:
        train(
            "toy",
            Demanding(**toy.SMALL),
            dataset=data,
            schedule=schedule,
            run_dir=path,
            **toy.SHORT,
        )
    assert "proposals" not in str(refusal.value), "a phase leaves those behind"
    assert not path.exists()


@pytest.mark.parametrize("name", ["next_actions", "previous_actions"])
def test_rows_in_no_order_have_no_neighbours(name: str):
    """As in a replay that was shuffled: each row brings its own next observation."""
    shuffled = toy.arrays()
    order = np.random.default_rng(0).permutation(len(shuffled["rewards"]))
    data = Dataset.from_arrays(**{key: column[order] for key, column in shuffled.items()})
    with pytest.raises(DeFlowError, match="hardly a transition follows another"):
        require_column(data, name)
    require_column(toy.dataset(4), name)


def test_episodes_of_one_step_need_no_neighbours():
    rows = np.zeros((3, 1), np.float32)
    data = Dataset.from_arrays(rows, rows, rows[:, 0], np.ones(3, np.bool_))
    require_column(data, "next_actions")
