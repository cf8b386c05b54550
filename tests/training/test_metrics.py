"""What an interval's numbers say of the steps that were measured."""

from __future__ import annotations

import numpy as np

from deflow.training.metrics import combine


def test_an_interval_keeps_extremes_and_means():
    chunks = [
        {"critic/q": np.array([[1.0], [2.0]]), "critic/q_min": np.array([[3.0], [-1.0]])},
        {"critic/q": np.array([[6.0]]), "critic/q_min": np.array([[0.0]])},
    ]
    assert combine(chunks) == {"critic/q": [3.0], "critic/q_min": [-1.0]}


def test_steps_at_which_a_room_was_not_measured_do_not_count():
    chunk = {
        "actor/q": np.array([[0.0, 0.0], [5.0, 7.0], [0.0, 0.0], [7.0, 9.0]]),
        "actor/q_max": np.array([[0.0, 0.0], [-5.0, -7.0], [0.0, 0.0], [-2.0, -3.0]]),
        "actor/measured": np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]),
        "critic/loss": np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [3.0, 3.0]]),
    }
    found = combine([chunk])
    assert set(found) == {"actor/q", "actor/q_max", "critic/loss"}
    np.testing.assert_allclose(found["actor/q"], [6.0, 8.0])
    np.testing.assert_allclose(found["actor/q_max"], [-2.0, -3.0])
    np.testing.assert_allclose(found["critic/loss"], [1.5, 1.5])
    resting = {name: values[:1] for name, values in chunk.items()}
    assert set(combine([resting])) == {"critic/loss"}
