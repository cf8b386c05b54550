"""Runs on the toy task, which most tests of this room look at rather than train again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests import toy
from tests.shared_work import copy_of
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
def for_all(
    training: Training, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., RunFolder]:
    """A run by name, which one of pytest-xdist's workers trains for all: each has a copy."""

    def run(name: str, settings: dict[str, Any] | None = None, **options: Any) -> RunFolder:
        def make(path: Path) -> None:
            training(settings, run_dir=path, **options)

        return RunFolder(copy_of(tmp_path_factory, name, make))

    return run


@pytest.fixture(scope="session")
def joint(for_all: Callable[..., RunFolder]) -> RunFolder:
    """A finished joint run of two seeds."""
    return for_all("joint", schedule="joint", env=toy.ENV, eval_episodes=4)


@pytest.fixture(scope="session")
def flow_first(for_all: Callable[..., RunFolder]) -> RunFolder:
    """A finished run of two seeds whose flow came first."""
    return for_all("flow-first", schedule="flow-first", env=toy.ENV, eval_episodes=4)


@pytest.fixture(scope="session")
def shared_flow(for_all: Callable[..., RunFolder]) -> RunFolder:
    """The same with one flow for both."""
    return for_all(
        "shared-flow", schedule="flow-first", share_flow=True, env=toy.ENV, eval_episodes=4
    )


@pytest.fixture(scope="session")
def learnt(for_all: Callable[..., RunFolder]) -> RunFolder:
    """A run long enough to solve the toy, from data in which every second episode strays."""
    return for_all(
        "learnt",
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

    def copy(folder: RunFolder) -> RunFolder:
        return RunFolder(Path(shutil.copytree(folder.path, tmp_path / folder.path.name)))

    return copy
