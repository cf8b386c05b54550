"""One's own arrays: what comes in goes out as transitions, and what is wrong is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deflow.core.errors import DeFlowError
from deflow.data.columns import COLUMNS
from deflow.data.dataset import Dataset
from deflow.data.frames import previous_rows

Arrays = dict[str, Any]


@st.composite
def trajectories(draw: st.DrawFn) -> list[Arrays]:
    """Trajectories of at least two rows, each with its own last observation and kind of end."""
    seed = draw(st.integers(0, 2**32 - 1))
    lengths = draw(st.lists(st.integers(2, 6), min_size=1, max_size=5))
    rng = np.random.default_rng(seed)
    return [
        {
            "observations": rng.normal(size=(length + 1, 3)).astype(np.float32),
            "actions": rng.uniform(-1, 1, size=(length, 2)).astype(np.float32),
            "rewards": rng.normal(size=length).astype(np.float32),
            "terminated": bool(rng.integers(2)),
        }
        for length in lengths
    ]


def flat(parts: list[Arrays]) -> Arrays:
    """The user's arrays: a row for each step."""
    terminals, timeouts = [], []
    for part in parts:
        last = np.arange(len(part["actions"])) == len(part["actions"]) - 1
        terminals.append(last & part["terminated"])
        timeouts.append(last & (not part["terminated"]))
    return {
        "observations": np.concatenate([part["observations"][:-1] for part in parts]),
        "next_observations": np.concatenate([part["observations"][1:] for part in parts]),
        "actions": np.concatenate([part["actions"] for part in parts]),
        "rewards": np.concatenate([part["rewards"] for part in parts]),
        "terminals": np.concatenate(terminals),
        "timeouts": np.concatenate(timeouts),
    }


def sound(rows: int = 6) -> Arrays:
    return {
        "observations": np.arange(rows * 3, dtype=np.float32).reshape(rows, 3),
        "actions": np.zeros((rows, 2), np.float32),
        "rewards": np.zeros(rows, np.float32),
        "terminals": np.zeros(rows, bool),
    }


@given(trajectories())
def test_every_step_comes_out_as_given(parts: list[Arrays]) -> None:
    arrays = flat(parts)
    data = Dataset.from_arrays(**arrays)
    assert data.transitions == len(arrays["actions"])
    for key, value in (
        ("observations", data.observations[data.rows]),
        ("next_observations", data.observations[data.next_rows]),
        ("rewards", data.rewards[data.rows]),
    ):
        np.testing.assert_array_equal(value, arrays[key])
    np.testing.assert_allclose(data.actions[data.rows], arrays["actions"], atol=1.1e-5)
    np.testing.assert_array_equal(data.masks[data.rows], 1.0 - arrays["terminals"])
    np.testing.assert_array_equal(
        data.episode_ends, np.cumsum([len(part["actions"]) for part in parts]) - 1
    )
    # Only what follows a trajectory is kept beside the given rows.
    assert len(data.observations) == len(arrays["actions"]) + len(parts)
    assert len(data.actions) == len(data.rewards) == len(data.masks) == len(data.observations)


@given(trajectories())
def test_without_next_observations_a_cut_row_is_no_transition(parts: list[Arrays]) -> None:
    arrays = flat(parts)
    del arrays["next_observations"]
    data = Dataset.from_arrays(**arrays)
    kept = ~arrays["timeouts"]
    np.testing.assert_array_equal(data.rows, np.flatnonzero(kept))
    np.testing.assert_array_equal(
        data.next_rows,
        np.where(arrays["terminals"], data_rows := np.arange(len(kept)), data_rows + 1)[kept],
    )
    assert len(data.observations) == len(arrays["actions"])


@given(trajectories())
def test_lengths_say_the_same_as_timeouts(parts: list[Arrays]) -> None:
    arrays = flat(parts)
    by_timeout = Dataset.from_arrays(**arrays)
    del arrays["timeouts"]
    by_length = Dataset.from_arrays(**arrays, lengths=[len(part["actions"]) for part in parts])
    assert by_length.fingerprint() == by_timeout.fingerprint()


@given(trajectories(), st.sampled_from(["observations", "rewards", "actions", "terminals"]))
def test_the_fingerprint_knows_every_number(parts: list[Arrays], key: str) -> None:
    arrays = flat(parts)
    before = Dataset.from_arrays(**arrays).fingerprint()
    assert Dataset.from_arrays(**arrays, name="another").fingerprint() == before
    arrays[key] = arrays[key].copy()
    flipped = arrays[key].flat
    flipped[0] = not flipped[0] if key == "terminals" else flipped[0] * 0.5 + 0.1
    assert Dataset.from_arrays(**arrays).fingerprint() != before


@given(st.floats(-1.00001, 1.00001))
def test_actions_stay_a_hair_inside_the_box(value: float) -> None:
    arrays = sound() | {"actions": np.full((6, 2), value)}
    actions = Dataset.from_arrays(**arrays).actions
    assert np.abs(actions).max() <= np.float32(1 - 1e-5)
    assert np.isfinite(np.arctanh(actions)).all()
    np.testing.assert_allclose(actions, value, atol=2.1e-5)


def test_columns_of_one_are_squeezed_and_whole_numbers_are_read() -> None:
    arrays = sound()
    wide = {key: arrays[key][:, None] for key in ("rewards", "terminals")}
    narrow = Dataset.from_arrays(**arrays)
    assert Dataset.from_arrays(**(arrays | wide)).fingerprint() == narrow.fingerprint()
    integers = {"terminals": np.zeros(6, int), "rewards": np.zeros(6, int)}
    assert Dataset.from_arrays(**(arrays | integers)).fingerprint() == narrow.fingerprint()


def with_value(key: str, index: Any, value: float, dtype: Any = np.float32) -> Arrays:
    array = sound()[key].astype(dtype)
    array[index] = value
    return {key: array}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_value("observations", (4, 1), np.nan), r"observations .* row 4, column 1 is nan"),
        (with_value("observations", (2, 0), 1e300, float), "row 2, column 0 is too large"),
        (with_value("rewards", 3, -np.inf), r"rewards must be finite: row 3 is -inf"),
        (with_value("actions", (5, 1), 1.1), r"\[-1, 1\]: row 5, column 1 is 1.1"),
        (with_value("terminals", 2, 0.5), r"terminals must be true or false .* row 2 is 0.5"),
        ({"actions": np.zeros((5, 2))}, "actions have 5 rows, and observations have 6"),
        ({"rewards": np.zeros(7)}, "rewards have 7 rows"),
        ({"rewards": np.zeros((6, 2))}, "one number per row"),
        ({"observations": np.zeros((0, 3))}, "observations are empty"),
        ({"observations": np.zeros(6)}, r"reshape\(-1, 1\)"),
        ({"observations": np.zeros((6, 2, 2))}, "two dimensions"),
        ({"observations": {"pixels": np.zeros((6, 3))}}, "dictionary"),
        ({"observations": [[0.0], [1.0, 2.0]]}, "ragged"),
        ({"actions": [[0.1], [0.1, 0.2]]}, "ragged"),
        ({"observations": np.full((6, 3), "a")}, "real numbers"),
        ({"observations": np.full((6, 3), None)}, "dtype object"),
        ({"actions": np.zeros(6, int)}, "discrete"),
        ({"actions": np.zeros((6, 1), np.int64)}, "discrete"),
        ({"actions": np.zeros(6)}, "two dimensions"),
        ({"lengths": [3, 2]}, "lengths sum to 5, and observations have 6"),
        ({"lengths": [6, 0]}, "at least 1"),
        ({"lengths": 6}, "whole numbers"),
        ({"lengths": [[1], [2, 3]]}, "ragged"),
        ({"observations": 1.0}, "two dimensions"),
        ({"lengths": [3.0, 3.0]}, "whole numbers"),
        ({"next_observations": np.zeros((6, 4))}, "4 columns, and observations have 3"),
        ({"next_observations": np.zeros((5, 3))}, "5 rows"),
        ({"timeouts": np.ones(6, bool)}, "no transition"),
    ],
)
def test_what_is_wrong_is_one_sentence(change: Arrays, words: str) -> None:
    with pytest.raises(DeFlowError, match=words) as raised:
        Dataset.from_arrays(**(sound() | change), name="mine")
    assert str(raised.value).startswith("mine: ")
    assert "\n" not in str(raised.value)


@given(trajectories())
def test_what_an_environment_was_reset_to_chains_no_trajectories(parts: list[Arrays]) -> None:
    arrays = flat(parts)
    plain = Dataset.from_arrays(**arrays)
    ends = plain.episode_ends
    arrays["next_observations"][ends[:-1]] = arrays["observations"][ends[:-1] + 1]
    reset = Dataset.from_arrays(**arrays)
    np.testing.assert_array_equal(reset.next_rows, plain.next_rows)
    np.testing.assert_array_equal(reset.observations[reset.next_rows], arrays["next_observations"])
    for name in ("next_actions", "previous_actions"):
        np.testing.assert_array_equal(COLUMNS[name](reset), COLUMNS[name](plain))
    count = len(reset.observations)
    before = previous_rows(count, reset.rows, reset.next_rows)
    np.testing.assert_array_equal(before, previous_rows(count, plain.rows, plain.next_rows))
    begins = np.concatenate([[0], ends[:-1] + 1])
    np.testing.assert_array_equal(before[begins], begins)
