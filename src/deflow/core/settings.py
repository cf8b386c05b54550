"""Settings of an agent: a default, a range, and whether a family of runs may sweep it."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx

from deflow.core.checks import require, require_choices
from deflow.core.errors import DeFlowError


def setting(
    default: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> Any:
    """A field of an agent. Fractions are leaves, so that a family may sweep them under `vmap`;
    whole numbers, names and flags shape the program and are static."""
    bounds = {"above": above, "at_least": at_least, "below": below, "at_most": at_most}
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    return eqx.field(
        default=default, static=not isinstance(default, float), metadata={"bounds": given}
    )


def check_settings(settings: Any) -> None:
    """Raise `DeFlowError` where a field of a dataclass is out of its range or choices."""
    require_choices(settings)
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        bounds = field.metadata.get("bounds")
        if isinstance(field.default, tuple):
            _check_widths(field.name, value, field.default)
        for number in value if isinstance(value, tuple) else (value,):
            if bounds:
                require(field.name, number, **bounds)


def _check_widths(name: str, value: Any, default: tuple[int, ...]) -> None:
    """Raise `DeFlowError` where sizes of layers are not whole numbers, or there is none of them
    where some are needed."""
    whole = isinstance(value, tuple) and all(type(width) is int for width in value)
    if not whole or (default and not value):
        example = ",".join(map(str, default)) or "256,256"
        raise DeFlowError(f"{name} must be whole numbers like {example}, not {value!r}.")
