"""Small sets that the tests of the data room share, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.shared_work import made_once

from deflow.data.generate import generate

STEPS = 40
SETS = (
    "cube-single-play-v0",
    "cube-single-noisy-v0",
    "scene-play-v0",
    "puzzle-3x3-play-v0",
    "pointmaze-medium-navigate-v0",
)


@pytest.fixture(scope="session")
def small_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with two short training episodes and one validation episode of each set. Tests
    only read it: of pytest-xdist's workers one makes it for all."""

    def make(folder: Path) -> None:
        for dataset in SETS:
            generate(dataset, episodes=2, workers=1, seed=0, data_dir=folder, steps=STEPS)

    return made_once(tmp_path_factory, "small-sets", make)
