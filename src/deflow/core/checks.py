"""Checks on settings, said in one sentence before any work begins."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any

from deflow.core.errors import DeFlowError


def require(
    name: str,
    value: float,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> None:
    """Raise `DeFlowError` unless the number is finite and inside the bounds."""
    bounds = [
        (above is None or value > above, f"above {above}"),
        (at_least is None or value >= at_least, f"at least {at_least}"),
        (below is None or value < below, f"below {below}"),
        (at_most is None or value <= at_most, f"at most {at_most}"),
    ]
    wanted = " and ".join(
        text
        for (_, text), bound in zip(bounds, (above, at_least, below, at_most), strict=True)
        if bound is not None
    )
    if not math.isfinite(value) or not all(held for held, _ in bounds):
        raise DeFlowError(f"The setting {name} must be {wanted}, but it is {value:g}.")


def require_unset(settings: Any, name: str, why: str) -> None:
    """Raise `DeFlowError` where a field that a class only inherits, and never asks, was set."""
    (default,) = (f.default for f in dataclasses.fields(settings) if f.name == name)
    if getattr(settings, name) != default:
        raise DeFlowError(f"The setting {name} would change nothing here, since {why}: leave it.")


def require_choices(settings: Any) -> None:
    """Raise `DeFlowError` where a `Literal` field of a dataclass holds none of its choices."""
    hints = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        if typing.get_origin(hints[field.name]) is typing.Literal:
            choices = typing.get_args(hints[field.name])
            value = getattr(settings, field.name)
            if value not in choices:
                wanted = " or ".join(map(str, choices))
                raise DeFlowError(f"The setting {field.name} must be {wanted}, not {value!r}.")
