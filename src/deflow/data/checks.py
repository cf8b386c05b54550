"""What an array must satisfy before anything is learned from it; each failure is one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deflow.core.errors import DeFlowError

Array = np.ndarray[Any, Any]

ROUNDING = 1e-5
"""How far outside [-1, 1] an action may lie and still count as rounding."""


def matrix(value: Any, what: str) -> Array:
    """A finite float32 matrix [rows, columns] from `value`.

    Raises:
        DeFlowError: a dictionary, no numbers, not two-dimensional, empty, or not finite.
    """
    if isinstance(value, Mapping):
        raise DeFlowError(
            f"{what} are a dictionary, and the networks here read one vector per row; join its "
            "parts with numpy.concatenate(..., axis=1)."
        )
    array = numbers(value, what)
    if array.ndim != 2:
        raise DeFlowError(
            f"{what} have shape {array.shape}, and must have two dimensions, rows and columns"
            + ("; use reshape(-1, 1) for a single column." if array.ndim == 1 else ".")
        )
    if array.size == 0:
        raise DeFlowError(
            f"{what} are empty (shape {array.shape}); there is nothing to learn from."
        )
    return finite(array, what)


def column(value: Any, what: str, rows: int) -> Array:
    """A vector [rows] of numbers; [rows, 1] is squeezed, as some published sets store it so."""
    array = numbers(value, what)
    if array.shape == (rows, 1):
        array = array[:, 0]
    if array.ndim != 1:
        raise DeFlowError(f"{what} have shape {array.shape}, and must have one number per row.")
    return same_rows(array, what, rows)


def flags(value: Any, what: str, rows: int) -> Array:
    """A vector [rows] of booleans from booleans or from zeros and ones."""
    array = column(value, what, rows)
    wrong = (array != 0) & (array != 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DeFlowError(
            f"{what} must be true or false (1 or 0) in each row, and row {row} is {array[row]}."
        )
    return array.astype(np.bool_)


def same_rows(array: Array, what: str, rows: int) -> Array:
    """The array, where it has as many rows as the observations."""
    if len(array) != rows:
        raise DeFlowError(
            f"{what} have {len(array)} rows, and observations have {rows}; they must agree."
        )
    return array


def finite(array: Array, what: str) -> Array:
    """The array as float32, where every number is finite as such."""
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = np.asarray(array, dtype=np.float32)
        total = narrow.sum(dtype=np.float64)
    if not np.isfinite(total):  # One pass without copies settles it for a sound array.
        _name_first(narrow, array, what)
    return narrow


def _name_first(narrow: Array, array: Array, what: str) -> None:
    wrong = ~np.isfinite(narrow)
    if not wrong.any():
        return
    where = np.argwhere(wrong)[0]
    value = array[tuple(where)]
    names = zip(("row", "column"), where, strict=False)
    place = ", ".join(f"{name} {index}" for name, index in names) or "the number"
    reason = "is too large for float32" if np.isfinite(value) else f"is {value}"
    more = int(wrong.sum()) - 1
    raise DeFlowError(
        f"{what} must be finite: {place} {reason}"
        + (f" (and {more} more numbers)" if more else "")
        + "; repair or drop those rows."
    )


def actions(value: Any, what: str, rows: int) -> Array:
    """Continuous actions [rows, act] in [-1, 1], kept a hair inside the box.

    Numbers outside by no more than rounding are clipped. All are clipped to +-(1 - 1e-5), as the
    published code does, so that an inverse tanh stays finite.
    """
    if not isinstance(value, Mapping):
        value = numbers(value, what)
        refuse_discrete(value, what)
    array = same_rows(matrix(value, what), what, rows)
    outside = np.abs(array) > 1.0 + ROUNDING
    if outside.any():
        row, place = (int(i) for i in np.argwhere(outside)[0])
        raise DeFlowError(
            f"{what} must lie in [-1, 1]: row {row}, column {place} is {array[row, place]:.6g}; "
            "rescale them to the box."
        )
    return np.clip(array, -1.0 + ROUNDING, 1.0 - ROUNDING)


def refuse_discrete(array: Array, what: str) -> None:
    """Raise `DeFlowError` where there is one whole number per row, [rows] or [rows, 1]."""
    if is_discrete(array):
        raise DeFlowError(
            f"{what} are discrete (one {array.dtype} per row), and the agents here need continuous "
            "actions: rows of real numbers in [-1, 1]; save them as float32 where they are no "
            "choices but amounts."
        )


def is_discrete(array: Array) -> bool:
    """Whether there is one whole number per row, as choices are kept."""
    return array.dtype.kind in "iu" and all(side == 1 for side in array.shape[1:])


def numbers(value: Any, what: str) -> Array:
    """An array of real numbers, of any shape.

    Raises:
        DeFlowError: ragged rows, or another type than real numbers.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DeFlowError(f"{what} are ragged: every row must have the same width.") from error
    if array.dtype.kind not in "fiub":
        raise DeFlowError(
            f"{what} have dtype {array.dtype}, and must be real numbers; convert them first."
        )
    return array
