"""Which column of a user's file plays which role."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deflow.core.errors import DeFlowError

ZERO = "zero"
"""`rewards=zero`: the file has no rewards and needs none, as for imitation."""

NONE = "none"
"""`terminals=none`: nothing terminated; every trajectory was merely cut."""

LAST = "last"
"""`terminals=last`: the last row of every trajectory terminated."""

_SEVERAL = ("observations", "actions", "next_observations")


@dataclass(frozen=True)
class Columns:
    """The names that a file gives to what a dataset needs; empty where the usual names hold.

    Attributes:
        observations: one column of vectors, or several that are joined in this order.
        actions: likewise.
        rewards: a number per row, or the word `zero`.
        terminals: true terminations (not time limits), or the word `none` or `last`.
        timeouts: where a trajectory was cut.
        lengths: the number of rows of each trajectory.
        episode: a label per row that changes where a trajectory begins.
        next_observations: as observations, where the file holds them.
    """

    observations: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    rewards: str = ""
    terminals: str = ""
    timeouts: str = ""
    lengths: str = ""
    episode: str = ""
    next_observations: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: Columns | Mapping[str, Any] | Iterable[str] | None) -> Columns:
        """From any of the ways in which columns may be given."""
        if given is None:
            return cls()
        if isinstance(given, Columns):
            return given
        if isinstance(given, str):
            return cls.parse([given])
        return cls.from_json(given) if isinstance(given, Mapping) else cls.parse(given)

    @classmethod
    def parse(cls, words: Iterable[str]) -> Columns:
        """Read what `--columns` takes: `observations=x,y,z actions=act`, or one JSON object.

        Raises:
            DeFlowError: no such form, an unknown role, or a role that is named twice.
        """
        document: dict[str, Any] = {}
        for word in words:
            if word.lstrip().startswith("{"):
                found = _object(word)
            else:
                role, equals, names = word.partition("=")
                if not (equals and names):
                    raise DeFlowError(f"--columns takes role=name, but it is {word!r}.")
                found = {role: names.split(",") if role in _SEVERAL else names}
            for role, names in found.items():
                if role in document:
                    raise DeFlowError(f"--columns names {role} twice; name it once.")
                document[role] = names
        return cls.from_json(document)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Columns:
        """Read back what `to_json` wrote; also one name where several may stand."""
        roles = [field.name for field in dataclasses.fields(cls)]
        values: dict[str, Any] = {}
        for role, names in document.items():
            if role not in roles:
                raise DeFlowError(
                    f"There is no role {role!r} for a column{nearest(str(role), roles)}; the roles "
                    f"are {', '.join(roles)}."
                )
            listed = [names] if isinstance(names, str) else names
            if not isinstance(listed, Sequence) or not all(
                isinstance(name, str) and name for name in listed
            ):
                raise DeFlowError(f"The columns for {role} must be names, but are {names!r}.")
            if role in _SEVERAL:
                values[role] = tuple(listed)
            elif len(listed) == 1:
                values[role] = listed[0]
            else:
                raise DeFlowError(f"{role} are one column, but {len(listed)} are named: {names}.")
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """The roles that are named, ready for JSON."""
        named = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            role: list(names) if isinstance(names, tuple) else names
            for role, names in named.items()
            if names
        }


def nearest(name: str, known: Iterable[str]) -> str:
    """` (the nearest is 'reward')`, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (the nearest is {near[0]!r})" if near else ""


def _object(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DeFlowError(f"--columns is no JSON object ({error}): {text[:80]!r}.") from error
    if not isinstance(document, dict):
        raise DeFlowError(f"--columns is no JSON object: {text[:80]!r}.")
    return document
