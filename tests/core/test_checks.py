"""Settings are refused in one sentence that names them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deflow.core.checks import require, require_choices
from deflow.core.errors import DeFlowError

numbers = st.floats(allow_nan=True, allow_infinity=True)
bounds = st.floats(-10, 10)


@given(value=numbers, low=bounds, high=bounds)
def test_closed_and_open_bounds_hold_exactly(value: float, low: float, high: float):
    def refused(**limits: float) -> bool:
        try:
            require("tau", value, **limits)
        except DeFlowError:
            return True
        return False

    finite = math.isfinite(value)
    assert refused(at_least=low, at_most=high) == (not finite or not low <= value <= high)
    assert refused(above=low, below=high) == (not finite or not low < value < high)


def test_the_sentence_says_what_was_wanted_and_what_was_given():
    with pytest.raises(DeFlowError, match=r"tau must be above 0 and at most 1, but it is 1\.5\."):
        require("tau", 1.5, above=0, at_most=1)


@dataclass(frozen=True)
class Settings:
    form: Literal["log", "linear"] = "log"
    free: str = "anything"


def test_only_the_choices_of_a_literal_are_taken():
    require_choices(Settings())
    require_choices(Settings(form="linear", free="log"))
    with pytest.raises(DeFlowError, match=r"form must be log or linear, not 'square'\."):
        require_choices(Settings(form="square"))  # type: ignore[arg-type]
