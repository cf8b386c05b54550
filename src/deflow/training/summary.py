"""The numbers of a run: the mean of the last three evaluations, over seeds."""

from __future__ import annotations

from typing import Any

import numpy as np

from deflow.training.evaluate import Evaluation
from deflow.training.run_folder import RunFolder

LAST = 3
"""OGBench's protocol: a run's score is the mean of its last three evaluations."""


def describe_scores(results: list[Evaluation]) -> str:
    """A word on an evaluation: success where there is one, return elsewhere."""
    if results[0].success is not None:
        values = [100 * result.success for result in results if result.success is not None]
        text = f"success {np.mean(values):.0f}%"
    else:
        values = [result.return_ for result in results]
        text = f"return {np.mean(values):.1f}"
    return text if len(values) == 1 else f"{text} ({', '.join(f'{v:.0f}' for v in values)})"


def summarize(folder: RunFolder) -> list[dict[str, Any]]:
    """One record a member: its score, and the evaluations that it is the mean of."""
    by_member: dict[str, list[dict[str, Any]]] = {}
    for record in folder.read_lines(folder.evaluations):
        by_member.setdefault(record["member"], []).append(record)
    summary = []
    for member, records in by_member.items():
        last = records[-LAST:]
        success = [record["success"] for record in last if record["success"] is not None]
        summary.append(
            {
                "member": member,
                "seed": records[0]["seed"],
                "success": float(np.mean(success)) if success else None,
                "return": float(np.mean([record["return"] for record in last])),
                "mean_of_steps": [record["step"] for record in last],
                "train_seconds": records[-1]["train_seconds"],
            }
        )
    return summary


def write_summary(folder: RunFolder, position: dict[str, Any]) -> None:
    """`summary.json` and the learning-curve picture."""
    from deflow.training.curve import draw_curve

    folder.write_json("summary.json", {"position": position, "members": summarize(folder)})
    draw_curve(folder)
