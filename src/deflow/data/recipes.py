"""Which sets can be made here, and how much of each the official one holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from deflow.core.errors import DeFlowError
from deflow.data.names import family, is_visual, parse_dataset

if TYPE_CHECKING:
    from deflow.data.oracles_ant import AntExpert

Episode = Mapping[str, np.ndarray[Any, Any]]
"""One trajectory, a row per step: observations, actions, terminals (True on the last row), qpos,
qvel, and button_states where the environment has buttons."""

_EPISODES = {
    "cube-triple": 3000,
    "cube-quadruple": 5000,
    "puzzle-4x5": 3000,
    "puzzle-4x6": 5000,
    "pointmaze-giant": 500,
    "antmaze-giant": 500,
}
_STEPS = {"pointmaze-giant": 2001, "antmaze-giant": 2001}


@dataclass(frozen=True)
class Recipe:
    """How one dataset is collected.

    Attributes:
        dataset: OGBench's name, `cube-single-play-v0`.
        environment: the environment without version, `cube-single`.
        kind: `play`, `noisy` or `navigate`.
        episodes: training episodes of the official set.
        steps: rows per episode.
    """

    dataset: str
    environment: str
    kind: str
    episodes: int
    steps: int

    @property
    def needs_expert(self) -> bool:
        """Whether a trained policy walks in it."""
        return family(self.dataset) == "antmaze"


class Collector(Protocol):
    """Owns one environment and plays episodes in it, each fixed by its seed alone."""

    def collect(self, seed: np.random.SeedSequence) -> Episode | None:
        """Play one episode; `None` where the recipe rejects it and it must be drawn again."""


def recipe_for(name: str) -> Recipe:
    """The recipe of a dataset, also found from the name of one of its tasks.

    Raises:
        DeFlowError: the name is unknown, or the set cannot be made here (with the reason).
    """
    dataset = parse_dataset(name)
    environment, kind = dataset.removesuffix("-v0").rsplit("-", 1)
    if family(dataset) in {"humanoidmaze", "antsoccer"}:
        raise DeFlowError(
            f"{dataset!r} cannot be generated here, because its recipe takes an expert trained for "
            f"millions of steps; download the official {dataset}.npz and {dataset}-val.npz instead."
        )
    if kind in {"stitch", "explore"}:
        raise DeFlowError(
            f"{dataset!r} cannot be generated here, only 'navigate' sets of point and ant mazes "
            f"can; use {environment}-navigate-v0, or download the official files."
        )
    episodes, steps = _EPISODES.get(environment, 1000), _STEPS.get(environment, 1001)
    return Recipe(dataset, environment, kind, episodes, steps)


def make_collector(recipe: Recipe, expert: AntExpert | None = None) -> Collector:
    """Build the recipe's environment and oracles (about a second); `expert` walks where the recipe
    needs one."""
    if expert is not None:
        from deflow.data.oracles_ant import AntCollector

        return AntCollector(recipe, expert)
    if family(recipe.dataset) == "pointmaze":
        from deflow.data.oracles_point import PointCollector

        return PointCollector(recipe)
    from deflow.data.oracles_manip import ManipCollector

    if is_visual(recipe.dataset):
        from deflow.data.visual import draw_on_egl

        draw_on_egl()
    return ManipCollector(recipe)


def seed_episode(env: Any, seed: np.random.SeedSequence) -> np.random.Generator:
    """Fix every source of chance of one episode; returns the generator for the recipe's own draws.

    OGBench's oracles and mazes draw from numpy's global state, so this belongs in a worker process.
    """
    oracle, world, spaces, own = seed.spawn(4)
    np.random.seed(oracle.generate_state(8))  # noqa: NPY002
    env.unwrapped.np_random = np.random.Generator(np.random.PCG64(world))
    env.unwrapped.action_space.seed(int(spaces.generate_state(1)[0]))
    return np.random.default_rng(own)


class Rows:
    """Collects steps and stacks them in the official layout."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {}

    def append(self, **values: Any) -> None:
        for key, value in values.items():
            self._columns.setdefault(key, []).append(value)

    def stack(self) -> dict[str, np.ndarray[Any, Any]]:
        dtypes: dict[str, Any] = {"terminals": np.bool_, "button_states": np.int64}
        if getattr(self._columns["observations"][0], "dtype", None) == np.uint8:
            dtypes["observations"] = np.uint8
        return {
            key: np.array(column, dtype=dtypes.get(key, np.float32))
            for key, column in self._columns.items()
        }
