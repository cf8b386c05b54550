"""The progress bar that every long piece of work shows."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

console = Console(stderr=True, markup=False, emoji=False)
"""Progress and log go to stderr, so that stdout holds results alone. Words are shown as they are:
they may be a file's own."""


class RateColumn(ProgressColumn):
    """Steps per second, averaged by Rich over the recent past."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2f}/s")


def progress_bar(*, transient: bool = False) -> Progress:
    """A Rich progress bar: description, bar, count, rate, elapsed, time left, and a free note.

    Give tasks a `note` field (`progress.add_task("train", total=n, note="")`) for the last word,
    such as the latest success rate.
    """
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        transient=transient,
    )
