"""The options that every command that looks into a set has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deflow.cli.options import box_of

if TYPE_CHECKING:
    from deflow.data.transforms import Box


@dataclass(kw_only=True)
class SetOptions:
    """Where a set is, and how one's own data are read; as `deflow train` takes them."""

    columns: tuple[str, ...] = ()
    """Which column of your file is what, each as role=name; vectors of several as role=name,name.
    The roles: observations, actions, rewards, terminals, timeouts, lengths, episode,
    next_observations."""
    action_bounds: tuple[float, ...] = ()
    """The bounds of the actions in your file: low and high for all, or all lows, then all highs
    (default: those that the data declare, else [-1, 1] where they lie there)."""
    data_dir: Path | None = None
    """The data folder; by default DEFLOW_DATA_DIR, or the user's cache."""
    json: bool = False
    """Print one JSON document instead of text."""

    @property
    def bounds(self) -> Box | None:
        """The box of --action-bounds, where it is given."""
        box: Box | None = box_of(self.action_bounds)
        return box
