"""A user's own data, from an .npz file of flat arrays."""

from __future__ import annotations

from pathlib import Path

from deflow.core.errors import DeFlowError
from deflow.data.dataset import Dataset
from deflow.data.npz import read_npz

REQUIRED = ("observations", "actions", "rewards", "terminals")
OPTIONAL = ("timeouts", "lengths", "next_observations")


def load_file(path: Path) -> Dataset:
    """The dataset of a file that holds the arguments of `Dataset.from_arrays` by name.

    Raises:
        DeFlowError: the file cannot be read, lacks an array, or its arrays do not fit together.
    """
    if path.suffix != ".npz":
        raise DeFlowError(f"{path} is not an .npz file; save your arrays with numpy.savez.")
    arrays = read_npz(path, required=REQUIRED)
    wanted = {name: arrays[name] for name in (*REQUIRED, *OPTIONAL) if name in arrays}
    return Dataset.from_arrays(**wanted, name=path.stem)
