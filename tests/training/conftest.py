"""Runs on the toy task, which most tests of this room look at rather than train again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests import toy
from tests.training.runs import Training

from deflow import DeFlow, train
from deflow.data.dataset import Dataset
from deflow.training.run_folder import RunFolder


@pytest.fixture(scope="session")
def data() -> Dataset:
    return toy.dataset()


@pytest.fixture(scope="session")
def training(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """`deflow.train` on the toy at its smallest; any option may be given."""

    def run(settings: dict[str, Any] | None = None, **options: Any) -> RunFolder:
        agent = DeFlow(**{**toy.SMALL, **(settings or {})})
        options.setdefault("run_dir", tmp_path_factory.mktemp("run") / "it")
        return train("toy", agent, **{"dataset": data, **toy.SHORT, **options})

    return run


@pytest.fixture(scope="session")
def joint(training: Training) -> RunFolder:
    """A finished joint run of two seeds."""
    return training(schedule="joint", env=toy.ENV, eval_episodes=4)


@pytest.fixture(scope="session")
def flow_first(training: Training) -> RunFolder:
    """A finished run of two seeds whose flow came first."""
    return training(schedule="flow-first", env=toy.ENV, eval_episodes=4)


@pytest.fixture(scope="session")
def shared_flow(training: Training) -> RunFolder:
    """The same with one flow for both."""
    return training(schedule="flow-first", share_flow=True, env=toy.ENV, eval_episodes=4)


@pytest.fixture(scope="session")
def learnt(training: Training) -> RunFolder:
    """A run long enough to solve the toy, from data in which every second episode strays."""
    return training(
        {"hidden": (32, 32), "batch_size": 64, "learning_rate": 1e-3, "delta": 0.2, "tau": 0.02},
        dataset=toy.dataset(episodes=150),
        schedule="flow-first",
        env=toy.ENV,
        steps=3000,
        chunk=500,
        log_every=1000,
        checkpoint_every=3000,
        eval_every=3000,
        eval_episodes=30,
    )


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[RunFolder], RunFolder]:
    """A copy of a run, to be damaged or gone on with."""
    import shutil

    def copy(folder: RunFolder) -> RunFolder:
        return RunFolder(Path(shutil.copytree(folder.path, tmp_path / folder.path.name)))

    return copy
