"""Between a user's units and those that agents learn in; kept beside the policy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from deflow.core.errors import DeFlowError
from deflow.data import checks
from deflow.data.dataset import Floats
from deflow.data.readers.raw import RawData

Array = np.ndarray[Any, Any]
RewardScale = Literal["std", "range"]

_RANGE = 1000.0
_ROWS = 1 << 16
"""Rows that are normalised at a time, in double precision."""


@dataclass(frozen=True)
class Box:
    """Bounds of actions, in the user's units; a single number holds for every column.

    Raises `DeFlowError` where a bound is not finite or a low one is not below its high one.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.low or len(self.low) != len(self.high):
            raise DeFlowError(
                f"Actions need as many low bounds as high ones, not {len(self.low)} and "
                f"{len(self.high)}."
            )
        for index, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise DeFlowError(
                    f"The bounds of action column {index} are {low:g} and {high:g}, and must be "
                    "finite numbers, the low one below the high one."
                )

    @classmethod
    def of(cls, actions: ArrayLike) -> Box:
        """The least box that holds the actions [N, act]; a column that never moves gets one around
        its value."""
        array = checks.matrix(actions, "actions").astype(np.float64)
        low, high = array.min(axis=0), array.max(axis=0)
        still = low == high
        return cls(
            tuple(np.where(still, low - 1.0, low).tolist()),
            tuple(np.where(still, high + 1.0, high).tolist()),
        )

    @property
    def is_unit(self) -> bool:
        """Whether it is [-1, 1] in every column, so that nothing is to be scaled."""
        return set(self.low) == {-1.0} and set(self.high) == {1.0}

    def scale(self, actions: ArrayLike, what: str = "actions") -> Array:
        """Actions [..., act] in the user's units as float64 in [-1, 1].

        Raises:
            DeFlowError: another number of columns, or a row outside the bounds by more than
                rounding.
        """
        array = checks.numbers(actions, what).astype(np.float64)
        low, high = self._sides(array, what)
        scaled = 2.0 * (array - low) / (high - low) - 1.0
        wrong = np.abs(scaled) > 1.0 + checks.ROUNDING
        if wrong.any():
            place = tuple(int(i) for i in np.argwhere(wrong)[0])
            column = place[-1]
            raise DeFlowError(
                f"{what} must lie in their bounds: row {place[0]}, column {column} is "
                f"{array[place]:.6g}, outside [{self._at(self.low, column):.6g}, "
                f"{self._at(self.high, column):.6g}]; give wider ones."
            )
        clipped: Array = np.clip(scaled, -1.0, 1.0)
        return clipped

    def back(self, actions: ArrayLike) -> Floats:
        """Actions [..., act] in [-1, 1] as float32 in the user's units, inside the bounds."""
        array = np.asarray(actions, np.float64)
        low, high = self._sides(array, "actions")
        inside: Array = np.clip(low + (array + 1.0) * 0.5 * (high - low), low, high)
        return inside.astype(np.float32)

    def _sides(self, array: Array, what: str) -> tuple[Array, Array]:
        width = array.shape[-1] if array.ndim else 0
        if len(self.low) not in (1, width):
            raise DeFlowError(f"{what} have {width} columns, and bounds for {len(self.low)}.")
        return np.asarray(self.low), np.asarray(self.high)

    @staticmethod
    def _at(side: tuple[float, ...], column: int) -> float:
        return side[column if len(side) > 1 else 0]


@dataclass(frozen=True)
class Normal:
    """Observations as (x - mean) / (std + epsilon), column by column.

    `epsilon` keeps columns that hardly vary from being blown up; 1e-3 as in TD3+BC (Fujimoto and
    Gu 2021).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        numbers = (*self.mean, *self.std, self.epsilon)
        whole = self.mean and len(self.mean) == len(self.std) and all(map(math.isfinite, numbers))
        if not whole or self.epsilon <= 0 or min(self.std) < 0:
            raise DeFlowError(
                "Observations are normalised by as many means as deviations, finite and not "
                "negative, and an epsilon above 0."
            )

    @classmethod
    def of(cls, observations: ArrayLike) -> Normal:
        """Mean and deviation of each column of [N, obs]."""
        array = checks.matrix(observations, "observations")
        mean, std = array.mean(axis=0, dtype=np.float64), array.std(axis=0, dtype=np.float64)
        return cls(tuple(mean.tolist()), tuple(std.tolist()))

    def __call__(self, observations: ArrayLike) -> Floats:
        array = checks.numbers(observations, "observations")
        width = array.shape[-1] if array.ndim else 0
        if width != len(self.mean):
            raise DeFlowError(
                f"observations have {width} columns, and were normalised with {len(self.mean)}."
            )
        rows = array.reshape(-1, width)
        scaled = standardised(rows, np.asarray(self.mean), np.asarray(self.std) + self.epsilon)
        return scaled.reshape(array.shape)


def standardised(rows: Array, mean: Array, unit: Array) -> Floats:
    """(rows - mean) / unit, [rows, columns], in double precision and a block at a time: all at once
    would take several times their bytes."""
    scaled = np.empty(rows.shape, np.float32)
    with np.errstate(over="ignore"):
        for first in range(0, len(rows), _ROWS):
            part = slice(first, first + _ROWS)
            # As float32 first: the same number in two precisions stays the same.
            scaled[part] = (rows[part].astype(np.float32).astype(np.float64) - mean) / unit
    return scaled


@dataclass(frozen=True)
class Transforms:
    """What is done to a user's data before learning, and undone when acting.

    Attributes:
        box: bounds that actions are scaled from, to [-1, 1]; None where they are already there.
        normal: how observations are normalised; None where they are taken as they are.
        reward_scale: rewards are learned as (r + reward_shift) * reward_scale.
        reward_shift: see `reward_scale`.
    """

    box: Box | None = None
    normal: Normal | None = None
    reward_scale: float = 1.0
    reward_shift: float = 0.0

    def __post_init__(self) -> None:
        finite = math.isfinite(self.reward_scale) and math.isfinite(self.reward_shift)
        if not finite or self.reward_scale <= 0:
            raise DeFlowError(
                f"Rewards are scaled by a finite number above 0, not {self.reward_scale:g}, and "
                f"shifted by a finite one, not {self.reward_shift:g}."
            )

    def apply(self, raw: RawData) -> RawData:
        """The data as agents learn from them; numbers that are not finite are left for
        `RawData.dataset`, which names them.

        Raises:
            DeFlowError: other widths than those of the transforms, or actions out of bounds.
        """
        follows = raw.next_observations
        actions, rewards = raw.actions, raw.rewards
        if self.box:
            actions = self.box.scale(_vectors(raw), f"{raw.name}: actions")
        if self.reward_scale != 1.0 or self.reward_shift != 0.0:
            rewards = (rewards.astype(np.float64) + self.reward_shift) * self.reward_scale
        return replace(
            raw,
            observations=self.normal(raw.observations) if self.normal else raw.observations,
            next_observations=(
                self.normal(follows) if self.normal and follows is not None else follows
            ),
            actions=actions,
            rewards=rewards,
            bounds=None if self.box else raw.bounds,
        )

    def observation(self, observation: ArrayLike) -> Floats:
        """Observations [..., obs] of the environment, as the policy learned them."""
        if self.normal:
            return self.normal(observation)
        return np.asarray(observation, np.float32)

    def reward(self, reward: ArrayLike) -> Floats:
        """Rewards [...] of the environment, as the agent learned them."""
        scaled: Array = (np.asarray(reward, np.float64) + self.reward_shift) * self.reward_scale
        return scaled.astype(np.float32)

    def reward_back(self, reward: ArrayLike) -> Floats:
        """Rewards [...] that the agent learned, as the environment gave them."""
        given: Array = np.asarray(reward, np.float64) / self.reward_scale - self.reward_shift
        return given.astype(np.float32)

    def action_back(self, action: ArrayLike) -> Floats:
        """The policy's actions [..., act] in [-1, 1], in the environment's units."""
        return self.box.back(action) if self.box else np.asarray(action, np.float32)

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON, and for `from_json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Transforms:
        """Read back what `to_json` wrote; raises `DeFlowError` for anything else."""
        try:
            values = dict(document)
            for name, kind in (("box", Box), ("normal", Normal)):
                inner = values.get(name)
                if inner is not None:
                    values[name] = kind(**{key: _number(value) for key, value in inner.items()})
            for name in ("reward_scale", "reward_shift"):
                values[name] = float(values.get(name, getattr(cls, name)))
            return cls(**values)
        except (TypeError, ValueError, AttributeError) as error:
            raise DeFlowError(f"These are no transforms of data ({error}).") from error


UNCHANGED = Transforms()
"""Data that are learned from as they are."""


def reward_scale(raw: RawData, by: RewardScale) -> float:
    """The number that rewards are multiplied by.

    Args:
        by: `std`, so that they deviate by 1; `range`, so that the greatest and the least return of
            a trajectory lie 1000 apart, as IQL (Kostrikov et al. 2021) does for locomotion.

    Raises:
        DeFlowError: rewards or returns never vary.
    """
    what = f"{raw.name}: rewards"
    rewards = checks.finite(checks.column(raw.rewards, what, len(raw.rewards)), what)
    if by == "std":
        spread, unit = float(rewards.std(dtype=np.float64)), 1.0
    else:
        ends = raw.ends()
        episode: Array = np.cumsum(ends) - ends
        returns = np.bincount(episode, weights=rewards)
        spread, unit = float(returns.max() - returns.min()), _RANGE
    if spread == 0.0:
        raise DeFlowError(f"{what} cannot be scaled by their {by}: they never vary.")
    return unit / spread


def _vectors(raw: RawData) -> Array:
    """The actions, where they are vectors of real numbers as a `Dataset` needs them."""
    if raw.actions.ndim != 2:
        return checks.actions(raw.actions, f"{raw.name}: actions", len(raw.observations))
    checks.refuse_discrete(raw.actions, f"{raw.name}: actions")
    return checks.matrix(raw.actions, f"{raw.name}: actions").astype(np.float64)


def _number(value: Any) -> Any:
    return tuple(map(float, value)) if isinstance(value, Sequence) else float(value)
