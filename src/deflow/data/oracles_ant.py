"""The ant-maze recipe `navigate`: a trained ant walks to one random goal after another.

The recipe is OGBench's (Park et al., 2025; data_gen_scripts/generate_locomaze.py): the expert sees
the ant without its place, beside the unit direction to the next cell of a shortest path to the
goal; its mean action, with Gaussian noise of 0.2 and clipped to the box, is played and stored; a
goal that was reached is drawn anew from the vertices of the maze, and an episode ends with its time
alone.

The expert comes as arrays, exported from its run, and numpy evaluates them: this room knows no
agent, and a worker starts without JAX.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deflow.core.errors import DeFlowError
from deflow.data import checks
from deflow.data.npz import read_npz, write_npz
from deflow.data.oracles_point import PointCollector
from deflow.data.recipes import Recipe

Array = NDArray[np.float32]

WIDTHS = (29, 8)
"""Of what the expert sees (27 numbers of the ant, 2 of the direction) and of what it does."""

_PLACE = 2
"""Leading numbers of the ant's observation that say where it is."""


@dataclass(frozen=True)
class AntExpert:
    """The mean of a tanh-Gaussian policy: hidden layers with GELU, and tanh at the end.

    Attributes:
        layers: weights [in, out] and biases [out] of each layer, float32.
        source: where the policy comes from, ready for JSON; kept with the sets that it walked.

    Raises:
        DeFlowError: the layers do not lead from what an ant's expert sees to what it does.
    """

    layers: tuple[tuple[Array, Array], ...]
    source: Mapping[str, Any]

    def __post_init__(self) -> None:
        shapes = [weight.shape for weight, _ in self.layers]
        widths = [WIDTHS[0], *(bias.size for _, bias in self.layers)]
        flat = all(bias.ndim == 1 for _, bias in self.layers)
        if shapes != list(itertools.pairwise(widths)) or not flat or widths[-1] != WIDTHS[1]:
            raise DeFlowError(
                f"This is no ant's expert: one takes {WIDTHS[0]} numbers (the ant without its "
                f"place, and a direction) and gives {WIDTHS[1]}, and its layers are {shapes}; give "
                "a policy that was trained on online-ant-xy-v0."
            )

    def __call__(self, observation: NDArray[np.floating[Any]]) -> Array:
        """The policy's mean action [..., 8] for what it sees [..., 29]."""
        x: Array = observation.astype(np.float32)
        for weight, bias in self.layers[:-1]:
            x = _gelu(x @ weight + bias)
        weight, bias = self.layers[-1]
        action: Array = np.tanh(x @ weight + bias)
        return action

    def sha256(self) -> str:
        """A checksum of the layers, hexadecimal; the same policy has the same in any file."""
        digest = hashlib.sha256()
        for array in itertools.chain.from_iterable(self.layers):
            digest.update(f"{array.shape}".encode() + array.tobytes())
        return digest.hexdigest()

    def write(self, path: Path) -> None:
        """Keep the policy in an .npz file (w0, b0, w1, b1, ..., source), all or nothing."""
        arrays: dict[str, NDArray[Any]] = {"source": np.array(json.dumps(dict(self.source)))}
        for index, (weight, bias) in enumerate(self.layers):
            arrays |= {f"w{index}": weight, f"b{index}": bias}
        write_npz(path, arrays)

    @classmethod
    def read(cls, path: Path) -> AntExpert:
        """The policy that `write` kept.

        Raises:
            DeFlowError: the file cannot be read, or its arrays are no ant's expert.
        """
        arrays = read_npz(path, required=("w0", "b0", "source"), kind="ant's expert")
        count = sum(key.startswith("w") for key in arrays)
        lacking = [k for i in range(count) for k in (f"w{i}", f"b{i}") if k not in arrays]
        try:
            source = json.loads(str(arrays["source"]))
        except ValueError:
            source = None
        if lacking or not isinstance(source, dict):
            what = ", ".join(lacking) or "a readable source"
            raise DeFlowError(f"{path} is no ant's expert: it lacks {what}; export it again.")

        def array(key: str) -> Array:
            return checks.finite(checks.numbers(arrays[key], f"{path}: {key}"), f"{path}: {key}")

        return cls(tuple((array(f"w{i}"), array(f"b{i}")) for i in range(count)), source)


class AntCollector(PointCollector):
    """Plays ant-maze episodes: the mazes and goals of the point, walked by an expert."""

    noise = 0.2

    def __init__(self, recipe: Recipe, expert: AntExpert) -> None:
        super().__init__(recipe)
        self._expert = expert

    def mean_action(
        self, observation: NDArray[np.floating[Any]], direction: NDArray[np.floating[Any]]
    ) -> Array:
        return self._expert(np.concatenate([observation[_PLACE:], direction]))


def _gelu(x: Array) -> Array:
    """GELU in its tanh form, as in the networks here."""
    inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x * x * x)
    smooth: Array = np.float32(0.5) * x * (1 + np.tanh(inner))
    return smooth
