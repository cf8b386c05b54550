"""What a run measures, as JSON lines and as TensorBoard events."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from deflow.training.family import Member
from deflow.training.run_folder import RunFolder
from deflow.training.score import SCORES

Arrays = dict[str, np.ndarray]
"""Metrics of a chunk of steps on the host, each [steps, members]."""

WHERE = {"phase", "step", "total_step", "train_seconds", "member"}
"""What a line of metrics says of itself; the rest was measured."""


def combine(chunks: list[Arrays]) -> Arrays:
    """One value a member for an interval: extremes for minima and maxima, the mean of the rest.

    Only the steps at which a room was measured count; a room that never was is left out.
    """
    columns = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    combined = {}
    for name, values in columns.items():
        room, _, quantity = name.rpartition("/")
        # The family has one clock, so that its members are measured at the same steps.
        measured = columns.get(f"{room}/measured", np.ones_like(values))[:, 0] > 0
        if quantity != "measured" and measured.any():
            reduce = {"_min": np.min, "_max": np.max}.get(name[-4:], np.mean)
            combined[name] = reduce(values[measured], axis=0)
    return combined


class MetricsLog:
    """Writes every member's metrics to the run folder and to event files.

    The folder's lines are the truth. An event file lacks what was not yet on the disk when its
    process was killed, and knows nothing of what is measured again: each process hides what earlier
    ones drew, and begins its own with all that the lines hold.
    """

    def __init__(self, folder: RunFolder, members: tuple[Member, ...]):
        from tensorboardX import SummaryWriter

        self.folder, self.members = folder, members
        self.writers = {
            member.label: SummaryWriter(
                str(folder.path / "tensorboard" / member.label), purge_step=0
            )
            for member in members
        }
        self._draw(folder.read_lines(folder.metrics))
        self._draw_scores(folder.read_lines(folder.evaluations))

    def write(
        self, where: dict[str, Any], values: dict[str, np.ndarray], alive: np.ndarray
    ) -> None:
        """`values` holds an array over members for each name; frozen members are left out, and so
        is what a member has not measured (NaN)."""
        records = []
        for index in np.flatnonzero(alive):
            own = {name: float(column[index]) for name, column in values.items()}
            own = {name: value for name, value in own.items() if not math.isnan(value)}
            records.append({**where, "member": self.members[index].label, **own})
        self.folder.append(self.folder.metrics, records)
        self._draw(records)

    def write_evaluation(self, records: list[dict[str, Any]]) -> None:
        self.folder.append(self.folder.evaluations, records)
        self._draw_scores(records)

    def _draw(self, records: list[dict[str, Any]]) -> None:
        for record in records:
            for name, value in record.items():
                if name not in WHERE:
                    self._add(record, name, value)

    def _draw_scores(self, records: list[dict[str, Any]]) -> None:
        for record in records:
            for name in (*SCORES, "length"):
                if record[name] is not None:
                    self._add(record, f"evaluation/{name}", record[name])
        for writer in self.writers.values():
            writer.flush()

    def _add(self, record: dict[str, Any], name: str, value: float) -> None:
        self.writers[record["member"]].add_scalar(name, value, record["total_step"])

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()
