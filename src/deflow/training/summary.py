"""The numbers of a run: its last evaluations, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deflow.core.agent import ONLINE
from deflow.training.evaluate import Evaluation
from deflow.training.run_folder import RunFolder
from deflow.training.score import SCORES, score_name, with_failures

LAST = 3
"""A run's score is the mean of its last three evaluations (OGBench's protocol). On D4RL, and
online, it is the last one alone; online, the evaluation before learning began is reported beside
it."""


def describe_scores(results: list[Evaluation]) -> str:
    """A word on an evaluation, by the most telling score that there is."""
    records = [result.to_json() for result in results]
    name = score_name(records)
    score = SCORES[name]
    values = [score.scale * record[name] for record in records]
    text = f"{name} {np.mean(values):.{0 if score.unit else 1}f}{score.unit}"
    return text if len(values) == 1 else f"{text} ({', '.join(f'{v:.0f}' for v in values)})"


def summarize(folder: RunFolder) -> list[dict[str, Any]]:
    """One record a member: its score, and the evaluations that it is the mean of."""
    by_member: dict[str, list[dict[str, Any]]] = {}
    for record in with_failures(folder.read_lines(folder.evaluations)):
        by_member.setdefault(record["member"], []).append(record)
    summary = []
    for member, records in by_member.items():
        before = hand_over(records)
        alone = before or records[-1].get("points") is not None
        last = records[-1:] if alone else records[-LAST:]
        own = {
            "member": member,
            "seed": records[0]["seed"],
            **_scores(last),
            "mean_of_steps": [record["step"] for record in last],
            "train_seconds": records[-1]["train_seconds"],
        }
        summary.append({**own, "before": _scores([before])} if before else own)
    return summary


def hand_over(records: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """A member's evaluation with which learning online began, the offline phase's last; None where
    it has not begun."""
    online = [record for record in records if record["phase"] == ONLINE]
    if not online:
        return None
    begun = online[0]["total_step"] - online[0]["step"]
    return next((record for record in records if record["total_step"] == begun), None)


def _scores(records: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    return {name: _mean([record.get(name) for record in records]) for name in SCORES}


def _mean(values: list[float | None]) -> float | None:
    """The mean of those that are there; None where there is none."""
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else None


def write_summary(folder: RunFolder, position: dict[str, Any]) -> None:
    """`summary.json` and the learning-curve picture."""
    from deflow.training.curve import draw_curve

    folder.write_json("summary.json", {"position": position, "members": summarize(folder)})
    draw_curve(folder)
