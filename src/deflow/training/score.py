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


def with_failures(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The records of one task, each with a success where any has one: an environment may tell of it
    only where there was one."""
    told = any(record.get("success") is not None for record in records)
    return [{**r, "success": r.get("success") or 0.0} if told else {**r} for r in records]


def score_name(records: Sequence[Mapping[str, Any]]) -> str:
    """The most telling score that all records have."""
    return next(
        (name for name in SCORES if all(r.get(name) is not None for r in records)), "return"
    )
