"""Counting the floating-point operations of a function from what JAX traces it to.

XLA's own cost analysis counts the body of a loop once, however often it turns, so that an agent
that integrates a flow would look ten times too cheap. Here a `scan` counts as often as it turns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def product_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Operations of a function's matrix products and convolutions: two for each multiply and add.

    Arguments may be arrays or `jax.ShapeDtypeStruct`s; nothing is computed. Everything but products
    (activations, norms, the optimiser) is left out: a few percent at the published sizes. Of a
    `cond` the dearest branch counts, as if it were always taken.

    Raises:
        ValueError: a product stands in a `while` loop, whose turns are not known beforehand.
    """
    traced: ClosedJaxpr = eqx.filter_make_jaxpr(function)(*arguments)[0]
    return _count(traced.jaxpr)


def _count(jaxpr: Jaxpr) -> int:
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: JaxprEqn) -> int:
    name = equation.primitive.name
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left: Any = equation.invars[0].aval
        out: Any = equation.outvars[0].aval
        inner = math.prod(left.shape[axis] for axis in contracted)
        return int(2 * inner * math.prod(out.shape))
    if name == "conv_general_dilated":
        kernel: Any = equation.invars[1].aval
        out = equation.outvars[0].aval
        made = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
        return int(2 * math.prod(kernel.shape) // made * math.prod(out.shape))
    inside = [_count(jaxpr) for value in equation.params.values() for jaxpr in _programs(value)]
    if name == "scan":
        return int(equation.params["length"]) * sum(inside)
    if name == "cond":
        return max(inside)
    if name == "while" and any(inside):
        raise ValueError("Products in a `while` loop cannot be counted: nobody knows its turns.")
    return sum(inside)


def _programs(value: Any) -> list[Jaxpr]:
    """The programs that a parameter of an equation holds."""
    if isinstance(value, ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, Jaxpr):
        return [value]
    if isinstance(value, tuple | list):
        return [program for each in value for program in _programs(each)]
    return []
