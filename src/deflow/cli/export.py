"""`deflow data export`."""

from __future__ import annotations

import json as jsonlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from deflow.cli.result import print_json
from deflow.cli.set_options import SetOptions
from deflow.core.errors import DeFlowError

if TYPE_CHECKING:
    from deflow.data.dataset import Dataset
    from deflow.data.readers.raw import Environment
    from deflow.data.transforms import Box


@dataclass
class Export(SetOptions):
    """Write a task's training set, or your own data, as a Minari set (in its HDF5 layout).

    Actions and rewards are those that the environment takes and gives, and the set names the
    environment where Gymnasium has registered it. `deflow train --data`, and Minari itself, read
    it.

    Examples:
      deflow data export cube-single-play-singletask-task1-v0 --minari cube/play-v0
      deflow data export my_arrays.npz --minari mine/log-v0 --out sets
      deflow data export log.npz --minari mine/log-v1 --action-bounds -2 2
    """

    dataset: Positional[str]
    """A task's name, your own file (.npz, .hdf5, .parquet) or folder (Parquet, LeRobot, Minari), or
    minari: and a set's id."""
    minari: str
    """The id of the new set, as NAMESPACE/NAME-v0."""
    out: Path | None = None
    """The folder of sets that it is put into; by default where Minari looks for them."""

    def run(self) -> int:
        """Write the set and print where it is."""
        from deflow.data.minari_export import export_minari, minari_target
        from deflow.data.own import is_own

        minari_target(self.minari, self.out)
        data, box, environment = self._own() if is_own(self.dataset) else self._task()
        folder = export_minari(data, self.minari, root=self.out, box=box, environment=environment)
        if self.json:
            written = jsonlib.loads((folder / "data" / "metadata.json").read_text())
            report = {
                "folder": str(folder),
                "id": self.minari,
                "episodes": written["total_episodes"],
                "transitions": data.transitions,
                "environment": environment.env_id if environment else None,
            }
            print_json(report)
        else:
            print(f"{data.transitions:,} transitions; train with --data {folder}")
        return 0

    def _own(self) -> tuple[Dataset, Box | None, Environment | None]:
        """One's own data, how their actions are bounded, and the environment that they name."""
        from deflow.data.columns_map import Columns
        from deflow.data.own import choose_box, read_raw
        from deflow.data.peek import holds_frames
        from deflow.data.transforms import Transforms

        if holds_frames(Path(self.dataset).expanduser(), Columns.of(self.columns)):
            raise _frames(self.dataset)
        raw = read_raw(self.dataset, self.columns)
        bounds = self.bounds
        box = choose_box(raw, bounds, quiet=True)
        if box is not None and bounds is None and raw.bounds is None:
            raise DeFlowError(
                f"{raw.name}: its actions lie outside [-1, 1], and a Minari set declares their "
                "bounds; give them with --action-bounds LOW HIGH."
            )
        # What is written is flat already, and an environment of nested observations would not fit.
        environment = raw.environment
        if environment is not None and environment.flatten:
            environment = None
        return Transforms(box=box).apply(raw).dataset(), box, environment

    def _task(self) -> tuple[Dataset, Box | None, Environment | None]:
        """A benchmark's training set, with the rewards that its environment gives."""
        from deflow.data.own import refuse_with_a_set
        from deflow.data.readers.raw import Environment
        from deflow.training.source import source

        refuse_with_a_set(self.dataset, columns=self.columns, action_bounds=self.action_bounds)
        found = source(self.dataset)
        if found.frames:
            raise _frames(found.name)
        data = found.load(self.data_dir)
        env_id = found.env.env_id
        data = replace(data, rewards=found.transforms.reward_back(data.rewards))
        return data, None, Environment(env_id, found.env.kwargs) if env_id else None


def _frames(name: str) -> DeFlowError:
    return DeFlowError(
        f"{name} is observed as frames, and only vectors are written as a Minari set: take the set "
        "of the same task from states."
    )
