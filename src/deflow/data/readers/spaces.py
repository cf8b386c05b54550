"""Minari's description of a space: which arrays it is made of, and its bounds."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from deflow.core.errors import DeFlowError
from deflow.data.readers.documents import parse_object
from deflow.data.readers.raw import Bounds

_DEEP = 16

_WIDEST = 1 << 31
"""Numbers in a box, far beyond any that has been read."""

_SIDES = 32
"""Dimensions of a box."""


class Part(NamedTuple):
    """One box of a space: the keys that lead to it (whole numbers in tuples), and its width."""

    keys: tuple[str | int, ...]
    width: int


def parts_of(text: Any, what: str) -> list[Part]:
    """The boxes of a serialised space, in the space's own order.

    That is the order in which Gymnasium's FlattenObservation joins them.

    Raises:
        DeFlowError: no such description; pictures, discrete or other spaces.
    """
    found: list[Part] = []
    _collect(parse_object(text, f"the description of the {what}"), (), what, found)
    if not found:
        raise DeFlowError(f"The {what} are an empty collection; there is nothing to learn from.")
    return found


def bounds_of(text: Any, what: str) -> Bounds | None:
    """The bounds of a serialised box; None where it has none on some side."""
    space = parse_object(text, f"the description of the {what}")
    width = _width(space, what)
    sides = []
    for side in ("low", "high"):
        try:
            numbers = np.asarray(space.get(side), dtype=np.float64).reshape(-1)
        except (TypeError, ValueError, OverflowError) as error:
            raise DeFlowError(f"The {what} have bounds that are no numbers.") from error
        if len(numbers) != width:
            raise DeFlowError(f"The {what} have {width} columns, and bounds for {len(numbers)}.")
        sides.append(numbers)
    if not np.isfinite(sides).all():
        return None
    return Bounds(tuple(sides[0].tolist()), tuple(sides[1].tolist()))


def _collect(space: Any, keys: tuple[str | int, ...], what: str, found: list[Part]) -> None:
    kind = space.get("type") if isinstance(space, dict) else None
    below = space.get("subspaces") if isinstance(space, dict) else None
    if len(keys) > _DEEP:
        raise DeFlowError(f"The {what} are nested more than {_DEEP} deep; flatten them first.")
    if kind == "Dict" and isinstance(below, dict):
        for key, inner in below.items():
            if not key or "/" in key or key in (".", ".."):
                raise DeFlowError(f"The {what} have a part named {key!r}, which leaves the data.")
            _collect(inner, (*keys, key), what, found)
    elif kind == "Tuple" and isinstance(below, list):
        for index, inner in enumerate(below):
            _collect(inner, (*keys, index), what, found)
    elif kind == "Box":
        found.append(Part(keys, _width(space, what)))
    else:
        raise DeFlowError(
            f"The {what} hold a {str(kind)[:40]} space, and the networks here read boxes of real "
            "numbers; collect the set from an environment with such a space."
        )


def _width(space: dict[str, Any], what: str) -> int:
    shape = space.get("shape")
    sides = shape if isinstance(shape, list) and len(shape) <= _SIDES else [0]
    if not all(type(side) is int and 0 < side <= _WIDEST for side in sides):
        raise DeFlowError(f"The {what} have the shape {str(shape)[:40]}, which is none of a box.")
    if space.get("dtype") == "uint8" and len(sides) > 1:
        raise DeFlowError(
            f"The {what} hold pictures (uint8, {'x'.join(map(str, sides))}), which are not read "
            "here; collect the set from state vectors."
        )
    width = math.prod(sides)
    if width > _WIDEST:
        raise DeFlowError(f"The {what} have the shape {str(shape)[:40]}, too large for any row.")
    return width
