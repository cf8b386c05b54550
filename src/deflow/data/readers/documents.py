"""The JSON documents that come with data: objects of modest size, and nothing that runs."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from deflow.core.entry import registered
from deflow.core.errors import DeFlowError
from deflow.data.readers.raw import Environment

_LIMIT = 1 << 26
_ENV_ID = re.compile(r"[\w.-]+(/[\w.-]+)?-v\d+")
_WORD = re.compile(r"[\w .,+-]*")
_LARGEST = 1 << 63
"""Beyond every whole number that an environment is made with; JSON knows no end."""


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DeFlowError: the file is absent, too large, no JSON, or no object.
    """
    if not path.is_file():
        raise DeFlowError(f"There is no file {path}.")
    try:
        if path.stat().st_size > _LIMIT:
            raise DeFlowError(f"{path} is larger than {_LIMIT >> 20} MB, which no description is.")
        return parse_object(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise DeFlowError(f"{path} cannot be read ({error}).") from error


def parse_object(text: Any, what: str) -> dict[str, Any]:
    """The object in a JSON text, or `DeFlowError`."""
    try:
        document = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise DeFlowError(f"{what} is no JSON ({str(error)[:200]}).") from error
    if not isinstance(document, dict):
        raise DeFlowError(f"{what} holds a {type(document).__name__}, and must hold an object.")
    return document


def environment_of(text: Any, *, flatten: bool) -> tuple[Environment | None, str]:
    """The environment that a serialised Gymnasium spec names, or None and the reason.

    Only its id, its time limit and plain arguments are taken, and only where the id is registered
    here. Its entry point and its wrappers, which could be any code, are never used.
    """
    try:
        spec = parse_object(text, "the environment's description")
    except DeFlowError as error:
        return None, str(error).rstrip(".")
    env_id, kwargs = spec.get("id"), spec.get("kwargs") or {}
    if not isinstance(env_id, str) or not _ENV_ID.fullmatch(env_id):
        return None, f"{str(env_id)[:80]!r} is no plain id"
    known = registered(env_id)
    if known is None:
        return None, f"{env_id} is not registered here"
    if spec.get("additional_wrappers"):
        return None, f"{env_id} was wrapped in code of its own"
    if not isinstance(kwargs, dict) or not _is_plain(kwargs, 0):
        return None, f"{env_id} was made with arguments that are no plain values"
    steps = spec.get("max_episode_steps")
    if type(steps) is int and 0 < steps < _LARGEST and steps != known.max_episode_steps:
        kwargs = {**kwargs, "max_episode_steps": steps}
    kept = {k: v for k, v in kwargs.items() if k != "render_mode"}
    return Environment(env_id, tuple(kept.items()), flatten), ""


def _is_plain(value: Any, depth: int) -> bool:
    """Numbers, short words without paths or modules, and shallow collections of these."""
    if depth > 4:
        return False
    if isinstance(value, dict):
        return all(_is_plain(v, depth + 1) for pair in value.items() for v in pair)
    if isinstance(value, list):
        return all(_is_plain(item, depth + 1) for item in value)
    if isinstance(value, str):
        return len(value) < 80 and bool(_WORD.fullmatch(value))
    if isinstance(value, int):
        return abs(value) < _LARGEST
    return value is None or (isinstance(value, float) and math.isfinite(value))
