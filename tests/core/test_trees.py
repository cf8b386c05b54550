"""Trees are read by the names of their leaves, and stacked along the axis of the family."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from deflow.core.agent import stack
from deflow.core.trees import named_leaves


def test_names_follow_the_path_and_lose_no_leaf():
    tree = {"critic": [jnp.zeros(2), {"bias": jnp.ones(3)}], "alpha": jnp.zeros(())}
    named = named_leaves(tree)
    assert set(named) == {"critic.0", "critic.1.bias", "alpha"}
    assert named["critic.1.bias"].shape == (3,)


def test_stacking_adds_the_axis_of_the_family_in_front():
    members = [{"w": jnp.full((2, 3), float(i)), "b": jnp.asarray(float(i))} for i in range(4)]
    stacked = stack(members)
    assert stacked["w"].shape == (4, 2, 3)
    np.testing.assert_array_equal(stacked["b"], np.arange(4))
