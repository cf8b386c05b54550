"""From named columns to roles: the part that all formats share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from deflow.core.errors import DeFlowError
from deflow.data import checks
from deflow.data.columns_map import LAST, NONE, ZERO, Columns, nearest
from deflow.data.readers.raw import RawData

Array = np.ndarray[Any, Any]

TEXT = "SU"
"""Kinds of arrays that hold labels rather than numbers."""

_USUAL: dict[str, tuple[str, ...]] = {
    "observations": ("observations",),
    "actions": ("actions",),
    "rewards": ("rewards",),
    "terminals": ("terminals", "terminations"),
    "timeouts": ("timeouts", "truncations"),
    "lengths": ("lengths",),
    "next_observations": ("next_observations",),
}
_WORDS = {"rewards": (ZERO,), "terminals": (NONE, LAST)}
_WAYS_OUT = {
    "rewards": f", or say rewards={ZERO} where nothing is to be learned from them",
    "terminals": f", or say terminals={NONE} (every trajectory was cut) or terminals={LAST}",
}
_MARKS = {"timeouts", "lengths", "episode"}
"""Roles that say where trajectories end, however they ended."""

_SHOWN = 20


@dataclass(frozen=True)
class Table:
    """The columns of a file, read when it is known which are needed.

    Attributes:
        path: for messages; its stem names the data.
        names: every column there is.
        read: the named columns, each as a list with one array [rows, ...] per part.
        episodes: the labels of the parts, where each is a trajectory.
        files: the labels of the parts, where each is a file: a trajectory of its own where nothing
            else marks where one ends. Without episodes and files there is one part.
        usual: the names that a role goes by in this format, beside those that all share.
    """

    path: Path
    names: Sequence[str]
    read: Callable[[Sequence[str]], Mapping[str, list[Array]]]
    episodes: Sequence[str] = ()
    files: Sequence[str] = ()
    usual: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def assemble(table: Table, columns: Columns) -> RawData:
    """The roles of a table's columns, joined, of the right shapes and of equal lengths.

    Where the parts are trajectories and hold one more observation than actions, the last is the
    observation that follows the last action.

    Raises:
        DeFlowError: a column is absent, holds no numbers, or does not fit the others.
    """
    chosen = {
        role: found for role in (*_USUAL, "episode") if (found := _choose(table, columns, role))
    }
    if "lengths" in chosen and "episode" in chosen:
        raise DeFlowError(f"{table.path}: give either lengths or an episode column, not both.")
    words = {role: names[0] for role, names in chosen.items() if names[0] in _WORDS.get(role, ())}
    named = {role: names for role, names in chosen.items() if role not in words}
    parts = table.read(list(dict.fromkeys(name for names in named.values() for name in names)))
    roles = {role: _joined(table, role, names, parts) for role, names in named.items()}
    lengths, one_more = _layout(table, roles)
    if one_more:
        seen = roles["observations"]
        roles["observations"] = [array[:-1] for array in seen]
        roles["next_observations"] = [array[1:] for array in seen]
    flat = {role: _flat(table, role, arrays) for role, arrays in roles.items()}
    count = len(flat["observations"])
    if count == 0:
        raise DeFlowError(
            f"{table.path} is empty: its observations have no rows, so there is nothing to learn "
            "from."
        )
    for role in flat.keys() - {"lengths"}:
        flat[role] = _per_row(flat[role], role, f"{table.path.stem}: {role}", count)
    if "episode" in flat:
        lengths = _lengths_of(table, flat["episode"])
    elif "lengths" in flat:
        lengths = _checked_lengths(table, flat["lengths"], count)
    raw = RawData(
        name=table.path.stem,
        observations=flat["observations"],
        actions=flat["actions"],
        rewards=flat.get("rewards", np.zeros(count, np.float32)),
        terminals=flat.get("terminals", np.zeros(count, np.bool_)),
        timeouts=flat.get("timeouts"),
        lengths=lengths,
        next_observations=flat.get("next_observations"),
    )
    return replace(raw, terminals=raw.ends()) if words.get("terminals") == LAST else raw


def _per_row(array: Array, role: str, what: str, count: int) -> Array:
    if role in ("terminals", "timeouts"):
        return checks.flags(array, what, count)
    if role == "episode" and array.dtype.kind in TEXT:
        return checks.same_rows(array, what, count)
    if role in ("rewards", "episode"):
        return checks.column(array, what, count)
    return checks.same_rows(array, what, count)


def known_names(columns: Columns) -> set[str]:
    """The names that columns of any role have: as given, or else the usual ones."""
    named = [_given(columns, role) or _USUAL.get(role, ()) for role in (*_USUAL, "episode")]
    return {name for names in named for name in names}


def _given(columns: Columns, role: str) -> tuple[str, ...]:
    names = getattr(columns, role)
    return (names,) if isinstance(names, str) and names else tuple(names)


def _choose(table: Table, columns: Columns, role: str) -> tuple[str, ...]:
    """The names of a role's columns; none where it may be left out and is."""
    names = _given(columns, role)
    if names and names[0] in _WORDS.get(role, ()):
        return names
    for name in names:
        if name not in table.names:
            raise DeFlowError(
                f"{table.path} has no column {name!r} for {role}{nearest(name, table.names)}; "
                f"it holds {_shown(table)}."
            )
    if role == "next_observations" and not names and columns.observations:
        return ()  # They need not be those of the observations that are named.
    usual = (*table.usual.get(role, ()), *_USUAL.get(role, ()))
    names = names or tuple(name for name in usual if name in table.names)[:1]
    if not names and role in ("observations", "actions", "rewards", "terminals"):
        raise DeFlowError(
            f"{table.path} has no column for {role}{nearest(role, table.names)}; it holds "
            f"{_shown(table)}, so name it with --columns {role}=NAME{_WAYS_OUT.get(role, '')}."
        )
    return names


def _shown(table: Table) -> str:
    more = len(table.names) - _SHOWN
    names = ", ".join(repr(name)[1:-1][:60] for name in table.names[:_SHOWN]) or "nothing"
    return f"{names} and {more} more" if more > 0 else names


def _joined(
    table: Table, role: str, names: Sequence[str], parts: Mapping[str, list[Array]]
) -> list[Array]:
    """A role's arrays, part by part: [rows, columns] for vectors, [rows] for numbers."""
    found = []
    labels = table.episodes or table.files
    for index in range(len(parts[names[0]])):
        label = f"{table.path.stem}: {role}" + (f" of {labels[index]}" if labels else "")
        arrays = [_numbers(parts[name][index], role, label) for name in names]
        if len(arrays) > 1 or (role in ("observations", "next_observations")):
            arrays = [array[:, None] if array.ndim == 1 else array for array in arrays]
        elif role == "actions" and arrays[0].ndim == 1 and arrays[0].dtype.kind == "f":
            arrays = [arrays[0][:, None]]
        for name, array in zip(names, arrays, strict=True):
            frames = array.ndim == 4 and len(arrays) == 1
            if array.ndim not in (1, 2) and not frames:
                raise DeFlowError(
                    f"{label} ({name}) have shape {array.shape}, and must have two dimensions, "
                    "rows and columns."
                )
            if len(array) != len(arrays[0]):
                raise DeFlowError(
                    f"{label}: {name} has {len(array)} rows, and {names[0]} has {len(arrays[0])}; "
                    "they must agree."
                )
        found.append(np.concatenate(arrays, axis=1) if len(arrays) > 1 else arrays[0])
    return found


def _numbers(array: Array, role: str, what: str) -> Array:
    """Numbers, but that episodes may be named by text."""
    if array.dtype.kind not in TEXT:
        return checks.numbers(array, what)
    if role != "episode" or array.ndim != 1:
        raise DeFlowError(f"{what} are text, and must be real numbers; convert them first.")
    return array


def _layout(table: Table, roles: Mapping[str, list[Array]]) -> tuple[Array | None, bool]:
    """The lengths of the parts where these are trajectories, and whether an observation more
    closes each of them."""
    lengths = [len(actions) for actions in roles["actions"]]
    if not table.episodes:
        alone = table.files and not roles.keys() & _MARKS
        return (_some(lengths) if alone else None), False
    one_more = "next_observations" not in roles and all(
        len(seen) == length + 1 for seen, length in zip(roles["observations"], lengths, strict=True)
    )
    for role, arrays in roles.items():
        for label, array, length in zip(table.episodes, arrays, lengths, strict=True):
            rows = length + 1 if one_more and role == "observations" else length
            if len(array) != rows:
                raise DeFlowError(
                    f"{table.path}: {role} of {label} have {len(array)} rows, and its actions have "
                    f"{length}; they must agree, or every trajectory hold one observation more."
                )
    return _some(lengths), one_more


def _some(lengths: Sequence[int]) -> Array:
    """The lengths of the parts that hold any row."""
    kept = np.asarray(lengths)
    return kept[kept > 0]


def _flat(table: Table, role: str, arrays: list[Array]) -> Array:
    """The parts one after another."""
    if len(arrays) == 1:
        return arrays[0]
    widths = {array.shape[1:] for array in arrays}
    if len(widths) > 1:
        raise DeFlowError(
            f"{table.path}: {role} are ragged: rows of {_widths(widths)} numbers; every trajectory "
            "must have the same width."
        )
    return np.concatenate(arrays)


def _widths(shapes: set[tuple[int, ...]]) -> str:
    return " and of ".join("x".join(map(str, shape)) or "single" for shape in sorted(shapes)[:3])


def _lengths_of(table: Table, labels: Array) -> Array:
    """Rows of each trajectory, from a label per row."""
    begins = np.flatnonzero(np.concatenate([[True], labels[1:] != labels[:-1]]))
    if len(np.unique(labels[begins])) < len(begins):
        _, firsts = np.unique(labels[begins], return_index=True)
        again = begins[np.setdiff1d(np.arange(len(begins)), firsts)[0]]
        which = "an episode" if labels.dtype.kind in TEXT else f"episode {labels[again]}"
        raise DeFlowError(
            f"{table.path}: the rows of {which} do not lie together, that of row {again} was there "
            "before; sort the rows by episode and by time."
        )
    return np.diff(np.concatenate([begins, [len(labels)]]))


def _checked_lengths(table: Table, lengths: Array, count: int) -> Array:
    whole = lengths.ndim == 1 and lengths.dtype.kind in "iu"
    if not whole or (lengths < 1).any() or (lengths > count).any() or lengths.sum() != count:
        raise DeFlowError(
            f"{table.path}: lengths must be whole numbers of at least 1, one a trajectory, and sum "
            f"to the {count} rows of the observations."
        )
    return lengths
