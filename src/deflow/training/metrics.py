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
    """Writes every member's metrics to the run folder and to event files."""

    def __init__(self, folder: RunFolder, members: tuple[Member, ...], begin: int):
        from tensorboardX import SummaryWriter

        self.folder, self.members = folder, members
        # What an earlier process wrote after step `begin` is hidden: it is measured again.
        self.writers = [
            SummaryWriter(str(folder.path / "tensorboard" / member.label), purge_step=begin + 1)
            for member in members
        ]

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
            for name, value in own.items():
                self.writers[index].add_scalar(name, value, where["total_step"])
        self.folder.append(self.folder.metrics, records)

    def write_evaluation(self, records: list[dict[str, Any]]) -> None:
        self.folder.append(self.folder.evaluations, records)
        for writer, record in zip(self.writers, records, strict=True):
            for name in (*SCORES, "length"):
                if record[name] is not None:
                    writer.add_scalar(f"evaluation/{name}", record[name], record["total_step"])
            writer.flush()

    def close(self) -> None:
        for writer in self.writers:
            writer.close()
