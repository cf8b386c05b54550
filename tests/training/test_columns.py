"""An agent that asks for what the data lack is refused before anything is written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from tests import toy

from deflow import DeFlow, DeFlowError, train
from deflow.core.agent import Phase
from deflow.core.types import Spec
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
