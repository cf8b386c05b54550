"""What runs are judged by: a benchmark's points, success, or the return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Score(NamedTuple):
    """How a score is shown: multiplied by `scale`, followed by `unit`."""

    scale: float
    unit: str
    label: str


SCORES = {
    "points": Score(1, "", "D4RL points"),
    "success": Score(100, "%", "success (%)"),
    "return": Score(1, "", "return"),
}
"""From the most telling to the least."""


def score_name(records: Sequence[Mapping[str, Any]]) -> str:
    """The most telling score that all records have."""
    return next(
        (name for name in SCORES if all(r.get(name) is not None for r in records)), "return"
    )
