"""How a return is shown to floq's network, and where its flow starts."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deflow.value.flow_critic import BINS, MARGIN, SIGMA, hl_gauss, starts

RANGES = st.sampled_from([(-1.0, 0.0), (0.0, 1.0), (-1.0, 2.0)])
DISCOUNTS = st.sampled_from([0.9, 0.99])


@settings(max_examples=40, deadline=None)
@given(RANGES, DISCOUNTS, st.floats(-0.5, 1.5))
def test_a_return_is_the_mass_of_a_gaussian_in_each_bin(
    reward_range: tuple[float, float], discount: float, place: float
):
    low, high = (
        (r + m) / (1 - discount) for r, m in zip(reward_range, (-MARGIN, MARGIN), strict=True)
    )
    z = low + place * (high - low)
    edges = np.linspace(low, high, BINS + 1)
    deviation = SIGMA * (high - low) / BINS
    below = np.array([0.5 * math.erfc((z - edge) / deviation / math.sqrt(2)) for edge in edges])
    wanted = np.diff(below) / (below[-1] - below[0])
    found = hl_gauss(jnp.asarray(z, jnp.float32), reward_range, discount)
    np.testing.assert_allclose(found, wanted, atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(RANGES, DISCOUNTS, st.floats(-1e6, 1e6))
def test_a_return_far_outside_is_shown_at_the_nearer_edge(
    reward_range: tuple[float, float], discount: float, z: float
):
    """One that the rewards of the data did not promise, or of a critic that diverges."""
    shown = hl_gauss(jnp.asarray(z, jnp.float32), reward_range, discount)
    np.testing.assert_allclose(shown.sum(), 1, atol=1e-5)
    assert (shown > -1e-3).all()  # float32, where what is left is itself a thousandth
    edges = jnp.asarray([z - 1, z + 1], jnp.float32)
    slope = jax.grad(lambda z: hl_gauss(z, reward_range, discount)[0])(edges[0])
    assert jnp.isfinite(slope)
    if abs(z) > 1000:
        assert int(shown.argmax()) == (BINS - 1 if z > 0 else 0)


@pytest.mark.parametrize("coverage", [0.1, 1.0])
def test_flows_start_over_a_part_of_what_can_be_earned(coverage: float):
    uniform = jnp.asarray([0.0, 0.5, 1.0])
    found = starts(uniform, (-1.0, 0.5), 0.9, coverage)
    np.testing.assert_allclose(found, coverage * np.array([-10.0, -2.5, 5.0]), rtol=1e-5)
