"""Arrow's columns as NumPy arrays of numbers, judged before they are trusted."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from deflow.core.errors import DeFlowError

Array = np.ndarray[Any, Any]


def column_numbers(column: Any, what: str) -> Array:
    """[N] or [N, k] from an Arrow column of numbers, or of lists of k numbers.

    Text becomes bytes [N], sixteen for each label, which say no more than whether two are equal: it
    may name episodes.

    Raises:
        DeFlowError: another type (decimals, structures, lists of lists), empty cells, or lists of
            different lengths.
        pyarrow.ArrowException: the column contradicts itself.
    """
    chunks, row = [], 0
    for chunk in getattr(column, "chunks", [column]):
        chunks.append(_chunk(chunk, what, row))
        row += len(chunk)
    chunks = [chunk for chunk in chunks if len(chunk)] or chunks[:1]
    if not chunks:
        return np.zeros(0, np.float32)
    if len({chunk.shape[1:] for chunk in chunks}) > 1:
        raise DeFlowError(f"{what} are ragged: every row must have the same width.")
    return np.concatenate(chunks) if len(chunks) > 1 else chunks[0]


def _chunk(chunk: Any, what: str, first: int) -> Array:
    """The numbers of a chunk, which begins at row `first`."""
    import pyarrow as pa

    kinds = pa.types
    # Arrow's files are not judged when they are opened; offsets that lie would be followed.
    chunk.validate(full=True)
    labels = kinds.is_dictionary(chunk.type) and _is_text(chunk.type.value_type)
    if kinds.is_dictionary(chunk.type) and not labels:
        chunk = chunk.dictionary_decode()
    nulls = chunk.null_count + (chunk.dictionary.null_count if labels else 0)
    if nulls:
        raise DeFlowError(f"{what} have {nulls} empty cells; fill them or drop those rows.")
    if labels or _is_text(chunk.type):
        # Never a label for every row: one long label would fill the memory.
        return _digests(chunk if labels else chunk.dictionary_encode())
    if _is_number(chunk.type):
        return np.asarray(chunk.to_numpy(zero_copy_only=False))
    lists = (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list)
    if not any(is_list(chunk.type) for is_list in lists) or not _is_number(chunk.type.value_type):
        raise DeFlowError(
            f"{what} are of type {str(chunk.type)[:80]}, and must be numbers or lists of numbers; "
            "convert them first, for instance to float32."
        )
    flat = chunk.flatten()
    if flat.null_count:
        raise DeFlowError(f"{what} have {flat.null_count} empty numbers; fill or drop those rows.")
    numbers = np.asarray(flat.to_numpy(zero_copy_only=False))
    if kinds.is_fixed_size_list(chunk.type):
        return numbers.reshape(len(chunk), chunk.type.list_size)
    widths = np.diff(chunk.offsets.to_numpy(zero_copy_only=False))
    if len(widths) and (widths != widths[0]).any():
        row = int(np.argmax(widths != widths[0]))
        raise DeFlowError(
            f"{what} are ragged: row {first + row} has {widths[row]} numbers, and row {first} has "
            f"{widths[0]}; every row must have the same width."
        )
    return numbers.reshape(len(widths), int(widths[0]) if len(widths) else 0)


def _digests(encoded: Any) -> Array:
    """A hash of each label, so that a long one takes no more memory than a short one."""
    labels = [
        hashlib.blake2b(str(label).encode(), digest_size=8).hexdigest()
        for label in encoded.dictionary.to_pylist()
    ]
    found: Array = np.asarray(labels, "S16")[encoded.indices.to_numpy(zero_copy_only=False)]
    return found


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    )
