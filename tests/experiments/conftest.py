"""The toy's data, and tiny runs on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests import toy

from deflow import train
from deflow.agents.registry import from_settings
from deflow.training.run_folder import RunFolder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunFolder]:
    """A finished run of a named agent, which was never evaluated."""

    def run(name: str, **settings: Any) -> RunFolder:
        agent = from_settings(name, {"hidden": (16, 16), "batch_size": 16, **settings})
        path = tmp_path_factory.mktemp("runs") / name
        options = {"steps": 10, "chunk": 10, "seeds": (0, 1)}
        return train("toy", agent, dataset=toy.dataset(), run_dir=path, **options)

    return run
