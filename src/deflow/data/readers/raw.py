"""What every reader gives: a user's arrays by their roles, in the user's own units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deflow.data.dataset import Dataset

Array = np.ndarray[Any, Any]


class Environment(NamedTuple):
    """The environment that a set says it was collected in.

    Attributes:
        env_id: an id that Gymnasium has registered here.
        kwargs: plain values for its maker.
        flatten: whether its observations are a dictionary or tuple, which the set holds as one
            vector, as Gymnasium's FlattenObservation would give it.
    """

    env_id: str
    kwargs: tuple[tuple[str, Any], ...] = ()
    flatten: bool = False


class Bounds(NamedTuple):
    """The bounds that a set declares for its actions, one number a column."""

    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class RawData:
    """Flat arrays, a row per step, trajectories one after another; numbers not yet judged.

    Attributes:
        name: for messages and reports.
        observations: [N, obs].
        actions: [N, act], in any units.
        rewards: [N].
        terminals: [N]; true terminations.
        timeouts: [N], or None.
        lengths: rows of each trajectory, summing to N, or None.
        next_observations: [N, obs], or None.
        bounds: of the actions, where the set declares them.
        environment: where the set names one that is registered here.
    """

    name: str
    observations: Array
    actions: Array
    rewards: Array
    terminals: Array
    timeouts: Array | None = None
    lengths: Array | None = None
    next_observations: Array | None = None
    bounds: Bounds | None = None
    environment: Environment | None = None

    def dataset(self) -> Dataset:
        """The arrays as a `Dataset`; raises `DeFlowError` as `Dataset.from_arrays` does."""
        return Dataset.from_arrays(
            self.observations,
            self.actions,
            self.rewards,
            self.terminals,
            timeouts=self.timeouts,
            lengths=self.lengths,
            next_observations=self.next_observations,
            name=self.name,
        )

    def ends(self) -> NDArray[np.bool_]:
        """[N]: the last row of each trajectory, as `Dataset.from_arrays` takes it."""
        count = len(self.observations)
        ends = np.zeros(count, np.bool_)
        for flags in (self.terminals, self.timeouts):
            if flags is not None:
                ends |= np.asarray(flags).reshape(-1) == 1
        if self.lengths is not None:
            last = np.cumsum(self.lengths) - 1
            ends[last[(last >= 0) & (last < count)]] = True
        ends[-1:] = True
        return ends
