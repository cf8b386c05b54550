"""A user's own data: any file or folder that a reader knows, or a Minari set by its id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from deflow.core.errors import DeFlowError
from deflow.core.progress import console
from deflow.data import checks
from deflow.data.columns_map import Columns
from deflow.data.dataset import Dataset
from deflow.data.readers import hdf5, lerobot, minari, npz, parquet
from deflow.data.readers.raw import Environment, RawData
from deflow.data.transforms import Box, Normal, RewardScale, Transforms, reward_scale

Reader = Callable[[Path, Columns], RawData]
Given = Columns | Mapping[str, Any] | Iterable[str] | None

_FILES: dict[str, Reader] = {
    ".npz": npz.read,
    ".h5": hdf5.read,
    ".hdf5": hdf5.read,
    ".parquet": parquet.read,
}


class Own(NamedTuple):
    """Data in the units that agents learn in, how they came there, and where they come from."""

    dataset: Dataset
    transforms: Transforms = Transforms()
    environment: Environment | None = None
    columns: Columns = Columns()


def load_own(
    path: Path | str,
    columns: Given = None,
    *,
    bounds: Box | Literal["data"] | None = None,
    normalize_observations: bool = False,
    scale_rewards: float | RewardScale = 1.0,
    shift_rewards: float = 0.0,
    transforms: Transforms | None = None,
) -> Own:
    """A user's data as agents learn from them, with all that leads back to the user's units.

    Args:
        path: an .npz, .hdf5 or .parquet file; a folder of Parquet files, in LeRobot's layout or in
            Minari's; or `minari:ID`.
        columns: which column is what (see `Columns`), where the usual names do not hold.
        bounds: of the actions. By default those that the file declares; where it declares none,
            [-1, 1] if they lie there, else (with a warning) the least box that holds them, as
            "data" asks for without one.
        normalize_observations: to mean 0 and deviation 1, column by column.
        scale_rewards: a number, or "std" or "range" (see `reward_scale`).
        shift_rewards: added before scaling.
        transforms: use these, as for a second file of the same kind, and none of the above.

    Raises:
        DeFlowError: the file cannot be read, lacks a column, its columns do not fit together, or
            actions lie outside the given bounds.
    """
    raw = read_raw(path, columns)
    if transforms is None:
        scale = scale_rewards
        transforms = Transforms(
            box=choose_box(raw, bounds),
            normal=Normal.of(raw.observations) if normalize_observations else None,
            reward_scale=reward_scale(raw, scale) if isinstance(scale, str) else float(scale),
            reward_shift=shift_rewards,
        )
    dataset = transforms.apply(raw).dataset()
    return Own(dataset, transforms, raw.environment, Columns.of(columns))


def load_again(path: Path | str, conversion: Mapping[str, Any]) -> Own:
    """A file read as it was before, by the columns and transforms that a run has kept."""
    transforms = Transforms.from_json(conversion["transforms"])
    return load_own(path, Columns.from_json(conversion["columns"]), transforms=transforms)


def choose_box(
    raw: RawData, bounds: Box | Literal["data"] | None = None, *, quiet: bool = False
) -> Box | None:
    """The box that actions are scaled from, or None where they lie in [-1, 1]; see `load_own`."""
    if isinstance(bounds, Box):
        return None if bounds.is_unit else bounds
    if bounds is None and raw.bounds is not None:
        declared = Box(*raw.bounds)
        return None if declared.is_unit else declared
    if raw.actions.ndim != 2 or checks.is_discrete(raw.actions):
        return None  # It is refused later, with the reason.
    farthest = np.abs(raw.actions, dtype=np.float64).max(initial=0.0)
    if bounds is None and farthest <= 1.0 + checks.ROUNDING:
        return None
    box = Box.of(raw.actions)
    if bounds is None and not quiet:
        low, high = min(box.low), max(box.high)
        console.print(
            f"{raw.name}: actions lie between {low:.6g} and {high:.6g}, and their true bounds are "
            "not given: the range of each column in the data is taken for them. Give the bounds "
            "where you know them, for the policy cannot act beyond these."
        )
    return box


def read_raw(path: Path | str, columns: Given = None) -> RawData:
    """The data of a file, folder or Minari id by their roles, in the user's own units.

    Raises:
        DeFlowError: the file cannot be read, or lacks a column.
    """
    wanted = Columns.of(columns)
    text = str(path)
    if text.startswith(minari.PREFIX):
        return minari.read(minari.locate(text.removeprefix(minari.PREFIX)), wanted)
    place = Path(path).expanduser()
    return reader_of(place)(place, wanted)


def is_own(name: str) -> bool:
    """Whether a word on the command line means a file, a folder or a Minari id."""
    return (
        name.startswith(minari.PREFIX) or Path(name).suffix.lower() in _FILES or Path(name).is_dir()
    )


def refuse_with_a_set(name: str, **given: object) -> None:
    """Raise `DeFlowError` where options for own data come with a name that means none."""
    for option, value in given.items():
        if value:
            raise DeFlowError(
                f"--{option.replace('_', '-')} is for data of your own, and {name!r} is no file, "
                "folder or minari: and an id; leave it, or mend the name."
            )


def reader_of(path: Path) -> Reader:
    """The reader for a path, by its ending or by what the folder holds.

    Raises:
        DeFlowError: there is none such.
    """
    if path.is_dir():
        if (path / "meta" / "info.json").is_file():
            return lerobot.read
        if any((folder / "metadata.json").is_file() for folder in (path, path / "data")):
            return minari.read
        return parquet.read
    reader = _FILES.get(path.suffix.lower())
    if reader is not None and not path.is_file():
        raise DeFlowError(f"There is no file {path}.")
    if reader is None:
        raise DeFlowError(
            f"{path} is neither a folder nor of a kind that is read here "
            f"({', '.join(_FILES)}); save your arrays with numpy.savez."
        )
    return reader
