"""The one error type that speaks to the user rather than to the programmer."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DeFlowError(Exception):
    """A mistake that the user can mend.

    The message is one clear sentence: what was wrong, where, and what to do; the command line
    prints it and exits with status 2. What can be known beforehand is said before any long work and
    before anything is written. What goes wrong later (a family that diverged, an environment that
    keeps failing) is said so too, and what was saved stays.
    """


def first_line(error: BaseException) -> str:
    """What an error says, without what follows its first line, or its kind where it is silent."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def near(
    word: str, known: Iterable[str], otherwise: str, *, most: int = 3, alike: float = 0.6
) -> str:
    """`did you mean this or that?`: the known words most like this one; `otherwise` without any."""
    found = difflib.get_close_matches(word, list(known), n=most, cutoff=alike)
    return f"did you mean {' or '.join(found)}?" if found else otherwise
