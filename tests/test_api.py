"""What the library offers at its top: `deflow.train` takes what people hand it, or says why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import toy

import deflow
from deflow import DeFlow, DeFlowError
from deflow.data.iav import intrinsic_action_variance
from deflow.training.config import TrainConfig
from deflow.training.delta import with_delta


def test_numpys_numbers_and_a_file_are_taken(tmp_path: Path):
    file = toy.save(tmp_path / "log.npz")
    run = deflow.train(
        "toy",
        DeFlow(**toy.SMALL),
        dataset=file,
        settings={"delta": "auto:2"},
        over={"tau": np.float32([0.5])},
        run_dir=tmp_path / "run",
        **{**toy.SHORT, "seeds": np.arange(2)},
    )
    config = run.config()
    assert config.seeds == (0, 1)
    assert config.over == {"tau": (0.5,)}
    estimate = intrinsic_action_variance(toy.dataset()).value
    assert config.agent.delta == pytest.approx(2 * estimate)
    policy = deflow.load_policy(run.path, member="seed1-tau0.5")
    assert policy(np.zeros(toy.OBS)).shape == (toy.ACT,)


def test_a_region_that_is_counted_over_all_dimensions_is_as_wide():
    config = TrainConfig(task="toy", agent=DeFlow(), seeds=(0,), env=toy.ENV)
    summed = replace(config, agent=DeFlow(residual_reduction="sum"))
    each, together = (with_delta(c, toy.dataset(), "2").agent.delta for c in (config, summed))
    assert together == pytest.approx(toy.ACT * each)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"settings": {"nonsense": 3}}, "no setting 'nonsense'"),
        ({"settings": {"delta": -1.0}}, "delta must be above 0"),
        ({"step": 3}, "no option 'step'; did you mean steps"),
        ({"dataset": "absent.npz"}, "absent.npz"),
        ({"settings": {"delta": "auto:x"}}, "auto:FACTOR"),
        ({"settings": {"delta": "auto"}, "over": {"delta": [0.1]}}, "leave --agent.delta auto"),
    ],
)
def test_what_cannot_be_taken_is_said(tmp_path: Path, options: dict[str, Any], said: str):
    given = {"dataset": toy.dataset(6), **toy.SHORT, **options}
    with pytest.raises(DeFlowError, match=said):
        deflow.train("toy", DeFlow(**toy.SMALL), run_dir=tmp_path / "it", **given)
    assert not (tmp_path / "it").exists()


def test_every_public_name_is_there():
    for name in deflow.__all__:
        assert getattr(deflow, name) is not None
    assert callable(deflow.parity.check)
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = deflow.absent
