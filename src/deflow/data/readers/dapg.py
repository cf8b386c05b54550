"""Reader of DAPG's own files: the original Adroit experts, and what people demonstrated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deflow.core.errors import DeFlowError
from deflow.data import checks
from deflow.data.npz import read_npz

Array = NDArray[Any]

_LAYERS = ("w0", "b0", "w1", "b1", "w2", "b2")
_SCALES = ("in_shift", "in_scale", "out_shift", "out_scale", "log_std")
_ABOVE_ZERO = 1e-8
"""DAPG's own addition to the scale of observations."""

_DOOR_ACTIONS = 28
_DOOR_STATE = {"init_qpos": 30, "init_qvel": 30, "init_door_body_pos": 3}
"""A door demonstration's initial state, and its widths."""


@dataclass(frozen=True)
class Expert:
    """One of DAPG's policies: a Gaussian around a small tanh network."""

    layers: tuple[tuple[Array, Array], ...]
    in_shift: Array
    in_scale: Array
    out_shift: Array
    out_scale: Array
    log_std: Array

    @classmethod
    def read(cls, path: Path) -> Expert:
        """The policy in an .npz file (w0, b0, ..., in_shift, in_scale, out_shift, out_scale,
        log_std; weights are [out, in]).

        Raises:
            DeFlowError: the file cannot be read, its arrays are no finite numbers or do not fit
                together, or its scale divides by zero.
        """
        arrays = read_npz(path, required=(*_LAYERS, *_SCALES), kind="expert's file")
        values = {
            key: checks.finite(checks.numbers(arrays[key], f"{path}: {key}"), f"{path}: {key}")
            for key in (*_LAYERS, *_SCALES)
        }
        if not _is_network(values):
            raise DeFlowError(
                f"{path} is no expert's file: the shapes of its arrays do not fit together."
            )
        if (values["in_scale"] + _ABOVE_ZERO == 0).any():
            raise DeFlowError(
                f"{path} is no expert's file: its in_scale divides by zero; fetch it again."
            )
        layers = tuple((values[f"w{i}"], values[f"b{i}"]) for i in range(3))
        return cls(layers, *(values[key] for key in _SCALES))

    @property
    def widths(self) -> tuple[int, int]:
        """Widths of observations and actions."""
        return len(self.in_shift), len(self.log_std)

    def mean(self, observation: Array) -> Array:
        """[act] for an observation [obs]; not clipped."""
        x = (observation - self.in_shift) / (self.in_scale + _ABOVE_ZERO)
        for index, (weight, bias) in enumerate(self.layers):
            x = weight @ (np.tanh(x) if index else x) + bias
        mean: Array = x * self.out_scale + self.out_shift
        return mean


def _is_network(values: Mapping[str, Array]) -> bool:
    """Whether weights are matrices from the width before to their bias's, and scales as wide."""
    if any(values[key].ndim != 1 for key in ("b0", "b1", "b2", *_SCALES)):
        return False
    seen, act = len(values["in_shift"]), len(values["log_std"])
    widths = (seen, *(len(values[f"b{i}"]) for i in range(3)))
    wanted: dict[str, tuple[int, ...]] = {f"w{i}": (widths[i + 1], widths[i]) for i in range(3)}
    wanted |= {"in_scale": (seen,), "b2": (act,), "out_shift": (act,), "out_scale": (act,)}
    return 0 not in widths and all(values[key].shape == shape for key, shape in wanted.items())


class Demonstrations(NamedTuple):
    """What people did.

    Attributes:
        lengths: [D], steps of each.
        actions: [N, 28], one demonstration after another; not clipped.
        states: by their names each part of the initial states, [D, ...].
    """

    lengths: NDArray[np.int64]
    actions: Array
    states: dict[str, Array]


def read_door_demonstrations(path: Path) -> Demonstrations:
    """The demonstrations in an .npz file of `lengths` [D], `actions` [N, 28], and `init_qpos`,
    `init_qvel` [D, 30] and `init_door_body_pos` [D, 3].

    Raises:
        DeFlowError: the file cannot be read, or its arrays are no finite numbers or do not fit
            together.
    """
    names = ("lengths", "actions", *_DOOR_STATE)
    arrays = read_npz(path, required=names, kind="file of door demonstrations")
    for name in names:
        arrays[name] = checks.numbers(arrays[name], f"{path}: {name}")
        checks.finite(arrays[name], f"{path}: {name}")
    lengths, actions = arrays["lengths"], arrays["actions"]
    whole = lengths.ndim == 1 and lengths.dtype.kind in "iu"
    if not whole or not len(lengths) or (lengths < 1).any():
        raise DeFlowError(
            f"{path}: lengths must be whole numbers of at least 1, one a demonstration."
        )
    rows = sum(map(int, lengths))  # Python's integers do not wrap around, as NumPy's do.
    fits = all(arrays[key].shape == (len(lengths), n) for key, n in _DOOR_STATE.items())
    if not fits or actions.shape != (rows, _DOOR_ACTIONS):
        raise DeFlowError(
            f"{path} is no file of door demonstrations: its arrays do not fit together."
        )
    states = {key.removeprefix("init_"): arrays[key] for key in _DOOR_STATE}
    return Demonstrations(lengths.astype(np.int64), actions, states)
