"""How much actions differ where states are alike: the intrinsic action variance (IAV).

DeFlow (arXiv 2601.10471, appendix A.1) sets its trust region by it: for each state the variance of
the actions at its k = 5 nearest neighbours in the dataset, averaged over states and divided by the
action's dimension. What the paper leaves open are the `Choices` here.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deflow.core.checks import require, require_choices
from deflow.core.errors import DeFlowError
from deflow.core.progress import progress_bar
from deflow.data.dataset import Dataset
from deflow.data.names import family
from deflow.data.transforms import standardised

Scale = Literal["raw", "standard"]
Rows = NDArray[np.intp]

NAVIGATION = ("pointmaze", "antmaze", "humanoidmaze", "antsoccer", "maze2d")
"""First words of the tasks for which the published rule takes delta to be the whole IAV; a tenth of
it for all others."""

NORMAL = 1.96
"""Deviations on either side of the mean that hold 95% of a normal distribution."""
BLOCK_ROWS, BLOCK_QUERIES = 16_384, 128
"""Distances that are in memory at one time: 8 MB, which the caches of a CPU hold too."""


@dataclass(frozen=True)
class Choices:
    """What the published definition leaves open.

    Attributes:
        neighbours: how many states a variance is taken over (k).
        include_self: whether the state itself is one of them.
        same_trajectory: whether its neighbours may belong to its own trajectory, as the frames just
            before and after it do.
        unbiased: divide by k - 1 rather than by k.
        scale: distances between observations as they are (`raw`), or with each of their columns
            divided by its deviation (`standard`).
    """

    neighbours: int = 5
    include_self: bool = True
    same_trajectory: bool = True
    unbiased: bool = False
    scale: Scale = "raw"

    @property
    def others(self) -> int:
        """How many states beside the own one it takes."""
        return self.neighbours - self.include_self


@dataclass(frozen=True)
class IAV:
    """An estimate.

    Attributes:
        value: variance of an action's coordinate, in squared units of the action box [-1, 1].
        interval: 95% confidence, for the mean over all states: 1.96 standard errors on either side.
        queries: how many states it is the mean of.
        choices: how it was computed.
    """

    value: float
    interval: tuple[float, float]
    queries: int
    choices: Choices

    def to_json(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "interval": list(self.interval),
            "queries": self.queries,
            "choices": asdict(self.choices),
        }


def intrinsic_action_variance(
    dataset: Dataset,
    *,
    neighbours: int = 5,
    queries: int = 10_000,
    seed: int = 0,
    include_self: bool = True,
    same_trajectory: bool = True,
    unbiased: bool = False,
    scale: Scale = "raw",
) -> IAV:
    """The IAV of a dataset, over `queries` of its states drawn without replacement.

    The neighbours are exact: each state is held against all rows, on the device. Where rows are
    equally far, the earlier ones are nearer.

    Args:
        dataset: whose transitions' states and actions are looked at.
        queries: how many states; all where there are fewer.
        seed: which of them.
        neighbours, include_self, same_trajectory, unbiased, scale: see `Choices`.

    Raises:
        DeFlowError: a setting is out of range, the observations are pictures, or there are too few
            rows, or trajectories, to have so many neighbours.
    """
    choices = Choices(neighbours, include_self, same_trajectory, unbiased, scale)
    return _estimates(dataset, [choices], queries, seed)[0]


def choices_table(
    dataset: Dataset, *, neighbours: int = 5, queries: int = 10_000, seed: int = 0
) -> list[IAV]:
    """The IAV under every combination of the free choices, over the same states.

    The neighbours of all of them come from two searches, one for each scale. Raises `DeFlowError`
    as `intrinsic_action_variance` does.
    """
    flags = (True, False)
    every = [
        Choices(neighbours, own, same, unbiased, scale)
        for scale, own, same, unbiased in itertools.product(_SCALES, flags, flags, flags)
    ]
    return _estimates(dataset, every, queries, seed)


_SCALES: tuple[Scale, ...] = ("raw", "standard")


def _estimates(dataset: Dataset, every: Sequence[Choices], queries: int, seed: int) -> list[IAV]:
    trajectory = dataset.episodes
    _check(dataset, trajectory, every, queries)
    states, actions = dataset.observations[dataset.rows], dataset.actions[dataset.rows]
    rng = np.random.default_rng(seed)
    asked = np.sort(rng.choice(len(states), min(queries, len(states)), replace=False))
    found: dict[Choices, IAV] = {}
    for scale in _SCALES:
        fitting = [choices for choices in every if choices.scale == scale]
        if not fitting:
            continue
        count = max(choices.others for choices in fitting)
        kinds = {choices.same_trajectory for choices in fitting}
        points = states if scale == "raw" else _standardised(states)
        near = nearest(points, trajectory, asked, count, kinds)
        for choices in fitting:
            rows = near[choices.same_trajectory][:, : choices.others]
            if choices.include_self:
                rows = np.concatenate([asked[:, None], rows], axis=1)
            close = actions[rows].astype(np.float64)
            each = close.var(axis=1, ddof=int(choices.unbiased)).mean(axis=-1)
            found[choices] = _mean(each, choices)
    return [found[choices] for choices in every]


def _mean(each: NDArray[np.float64], choices: Choices) -> IAV:
    value = float(each.mean())
    half = NORMAL * float(each.std(ddof=1)) / len(each) ** 0.5
    return IAV(value, (value - half, value + half), len(each), choices)


def _check(dataset: Dataset, trajectory: Rows, every: Sequence[Choices], queries: int) -> None:
    require("queries", queries, at_least=2)
    for choices in every:
        require_choices(choices)
        require("neighbours", choices.neighbours, at_least=2)
    if dataset.observations.ndim != 2:
        raise seen_as_pictures(dataset.name)
    wanted = max(choices.others for choices in every)
    rows, largest = len(trajectory), int(np.bincount(trajectory).max())
    if rows <= max(wanted, 1):
        raise DeFlowError(
            f"{dataset.name} has {rows} transitions, too few for {wanted} neighbours beside a "
            "state: ask for fewer with --neighbours."
        )
    apart = max((c.others for c in every if not c.same_trajectory), default=0)
    if rows - largest < apart:
        raise DeFlowError(
            f"{dataset.name} has {rows - largest} transitions outside its longest trajectory, too "
            f"few for {apart} neighbours that belong to others: allow those of the same trajectory."
        )


def seen_as_pictures(name: str) -> DeFlowError:
    """Why states that are pictures have no IAV."""
    return DeFlowError(
        f"{name} is observed as pictures, and states are compared by their numbers: take the set "
        "of the same task from states."
    )


def _standardised(states: NDArray[np.float32]) -> NDArray[np.float32]:
    """States with every column of mean 0 and deviation 1; one that never changes stays at 0."""
    mean = states.mean(axis=0, dtype=np.float64)
    deviation = states.std(axis=0, dtype=np.float64)
    return standardised(states, mean, np.where(deviation > 0, deviation, 1.0))


def nearest(
    points: NDArray[np.float32],
    trajectory: Rows,
    asked: Rows,
    count: int,
    kinds: Collection[bool],
) -> dict[bool, Rows]:
    """The `count` nearest other rows of some rows, nearest first: [len(asked), count] each.

    Distances are sums of squared differences, column by column, in float32: the shorter way over a
    matrix product would lose those between neighbours, which are small beside the points.

    Args:
        points: [N, width].
        trajectory: [N], the number of each row's trajectory, from 0.
        asked: the rows whose neighbours are wanted.
        kinds: with `True`, among all rows; with `False`, among those of other trajectories.
    """
    import jax.numpy as jnp

    block = min(BLOCK_ROWS, len(points))
    padding = -len(points) % block
    columns = np.pad(points, ((0, padding), (0, 0))).reshape(-1, block, points.shape[1])
    owners = np.pad(trajectory, (0, padding), constant_values=-1).reshape(-1, block)
    numbers = np.arange(len(points) + padding).reshape(-1, block)
    everything = (
        jnp.asarray(columns.transpose(0, 2, 1)),
        jnp.asarray(owners, jnp.int32),
        jnp.asarray(numbers, jnp.int32),
    )
    search = _search(count, tuple(sorted(kinds)))
    size = min(BLOCK_QUERIES, len(asked))
    parts: dict[bool, list[Rows]] = {kind: [] for kind in kinds}
    with progress_bar(transient=True) as bar:
        shown = bar.add_task("neighbours", total=len(asked), note="")
        for start in range(0, len(asked), size):
            # The last queries again where a block would not be full: one program serves all.
            own = asked[min(start, len(asked) - size) :][:size]
            found = search(everything, points[own], own.astype(np.int32), trajectory[own])
            new = min(size, len(asked) - start)
            for kind in kinds:
                parts[kind].append(np.asarray(found[kind], np.intp)[-new:])
            bar.update(shown, completed=start + new)
    return {kind: np.concatenate(blocks) for kind, blocks in parts.items()}


@functools.cache
def _search(count: int, kinds: tuple[bool, ...]) -> Callable[..., dict[bool, Any]]:
    """The program that holds a block of queries against all blocks of rows, one by one."""
    import jax
    import jax.numpy as jnp

    def merge(best: Any, squared: Any, rows: Any) -> Any:
        # Of equals the first is taken, and what is held comes before what is new.
        closeness, at = jax.lax.top_k(-squared, min(count, len(rows)))
        both = jnp.concatenate([best[0], closeness], axis=1)
        candidates = jnp.concatenate([best[1], rows[at]], axis=1)
        closeness, at = jax.lax.top_k(both, count)
        return closeness, jnp.take_along_axis(candidates, at, axis=1)

    def add(squared: Any, pair: Any) -> tuple[Any, None]:
        return squared + jnp.square(pair[0][:, None] - pair[1]), None

    @jax.jit
    def search(everything: Any, points: Any, own: Any, trajectory: Any) -> dict[bool, Any]:
        def fold(best: Any, part: Any) -> tuple[Any, None]:
            columns, owner, rows = part
            nothing = jnp.zeros((len(own), len(rows)), jnp.float32)
            squared, _ = jax.lax.scan(add, nothing, (points.T, columns))
            squared = jnp.where((owner < 0) | (rows == own[:, None]), jnp.inf, squared)
            strangers = jnp.where(owner == trajectory[:, None], jnp.inf, squared)
            return {
                kind: merge(old, squared if kind else strangers, rows) for kind, old in best.items()
            }, None

        empty = (
            jnp.full((len(own), count), -jnp.inf, jnp.float32),
            jnp.zeros((len(own), count), jnp.int32),
        )
        best, _ = jax.lax.scan(fold, dict.fromkeys(kinds, empty), everything)
        return {kind: rows for kind, (_, rows) in best.items()}

    return search


def published_factor(task: str) -> float:
    """What the published rule multiplies a task's IAV by: 1 for navigation, 0.1 otherwise."""
    return 1.0 if family(task) in NAVIGATION else 0.1
