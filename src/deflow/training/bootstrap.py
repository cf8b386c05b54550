"""Statistics of rows that come in groups, with intervals from resampling the groups.

Steps of one episode are alike, so that an interval from single rows would be far too narrow: here
whole episodes are drawn. A statistic is a function of the rows' weights, which are how often each
row's episode was drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], float]
"""From weights [rows] to a number; NaN where it is not defined for them."""

DRAWS = 1000
"""Of groups, for an interval."""


@dataclass(frozen=True)
class Estimate:
    """A number and the 95% interval of a bootstrap; NaN where it is not defined."""

    value: float
    interval: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """As plain data, in which what is not defined is None."""
        low, high = self.interval
        return {"value": _or_none(self.value), "interval": [_or_none(low), _or_none(high)]}


def _or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None


def bootstrap(statistic: Statistic, groups: ArrayLike, *, seed: int = 0) -> Estimate:
    """A statistic of rows and its interval, as if other groups (`groups` [rows], any labels) had
    been met. Draws for which it is not defined are left out."""
    names, own = np.unique(np.asarray(groups), return_inverse=True)
    chance = np.full(len(names), 1 / len(names))
    drawn = np.random.default_rng(seed).multinomial(len(names), chance, size=DRAWS)
    values = np.asarray([statistic(counts[own].astype(np.float64)) for counts in drawn])
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, (0.025, 0.975)) if len(values) else (math.nan, math.nan)
    return Estimate(statistic(np.ones(len(own))), (float(low), float(high)))


def mean_of(x: ArrayLike) -> Statistic:
    """The mean of rows."""
    values = np.asarray(x, np.float64)
    return lambda w: float(w @ values / w.sum())


def slope_of(x: ArrayLike, y: ArrayLike) -> Statistic:
    """The least-squares slope of y on x."""
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return lambda w: _ratio(_covariance(a, b, w), _covariance(a, a, w))


def rank_correlation_of(x: ArrayLike, y: ArrayLike) -> Statistic:
    """Spearman's rank correlation; equal values share their mean rank."""
    first, second = _ranked(x), _ranked(y)

    def correlation(w: Floats) -> float:
        a, b = first(w), second(w)
        return _ratio(_covariance(a, b, w), math.sqrt(_covariance(a, a, w) * _covariance(b, b, w)))

    return correlation


def _ranked(x: ArrayLike) -> Callable[[Floats], Floats]:
    """Ranks of rows among all of them, each standing as often as its weight says."""
    names, own = np.unique(np.asarray(x), return_inverse=True)

    def ranks(w: Floats) -> Floats:
        weights = np.bincount(own, w, minlength=len(names))
        middle: Floats = (np.cumsum(weights) - weights / 2)[own]
        return middle

    return ranks


def _covariance(a: Floats, b: Floats, w: Floats) -> float:
    total = w.sum()
    return float(w @ ((a - w @ a / total) * (b - w @ b / total)) / total)


def _ratio(above: float, below: float) -> float:
    return above / below if below > 1e-12 else math.nan
