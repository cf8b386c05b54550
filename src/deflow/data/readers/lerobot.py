"""Reader of LeRobot's folders (v2.1 and v3): their state and action columns, without videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from deflow.core.errors import DeFlowError
from deflow.data import checks
from deflow.data.columns_map import NONE, Columns
from deflow.data.readers.assemble import assemble
from deflow.data.readers.documents import read_object
from deflow.data.readers.guards import require_inside
from deflow.data.readers.parquet import parquet_files, table
from deflow.data.readers.raw import RawData

_FILES = "data/chunk-*/*.parquet"
_USUAL = {
    "observations": ("observation.state",),
    "actions": ("action",),
    "rewards": ("next.reward",),
    "episode": ("episode_index",),
}


def read(path: Path, columns: Columns) -> RawData:
    """The data of a folder with `meta/info.json` and `data/chunk-*/*.parquet`.

    Observations are `observation.state`, actions `action`, rewards `next.reward` where there are
    such; otherwise say `rewards=zero`. The format does not tell terminations from cuts
    (`next.done` is true on every last frame), so nothing is taken to terminate unless
    `terminals=last` or a column is named.

    Raises:
        DeFlowError: as the Parquet reader; a description that leads elsewhere or declares another
            number of frames; frames out of order.
    """
    info = read_object(require_inside(path, path / "meta" / "info.json"))
    version = str(info.get("codebase_version", ""))[:20]
    if not version.startswith(("v2", "v3")):
        raise DeFlowError(
            f"{path} is in LeRobot's layout {version or '(none named)'}, and v2.1 and v3 are read "
            "here; convert it with LeRobot's own script."
        )
    place = info.get("data_path", "data/")
    parts = PurePosixPath(place).parts if isinstance(place, str) else ()
    if parts[:1] != ("data",) or ".." in parts:
        raise DeFlowError(
            f"{path}: info.json says that the data are in {str(place)[:80]!r}, and they must be in "
            "the folder data/; nothing outside it is read."
        )
    files = parquet_files(path, _FILES)
    whole = table(path, files, _USUAL)
    if not columns.terminals:
        columns = replace(columns, terminals=NONE)
    raw = assemble(whole, columns)
    declared = info.get("total_frames")
    if declared is not None and declared != len(raw.observations):
        raise DeFlowError(
            f"{path} holds {len(raw.observations)} frames in {len(files)} files, and info.json "
            f"declares {str(declared)[:20]}; fetch what is missing."
        )
    if "frame_index" in whole.names:
        frames = np.concatenate(whole.read(["frame_index"])["frame_index"])
        frames = checks.column(frames, f"{path}: frame_index", len(raw.observations))
        apart = np.diff(frames) != 1
        apart &= ~raw.ends()[:-1]
        if apart.any():
            raise DeFlowError(
                f"{path}: the frames are out of order at row {int(np.argmax(apart)) + 1}; sort the "
                "rows by episode_index and frame_index."
            )
    return raw
