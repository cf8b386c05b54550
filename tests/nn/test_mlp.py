"""Networks against numpy, and ensembles against their members."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.compiled import once

from deflow.nn.mlp import MLP, Ensemble, LayerNorm, Linear

run = once(lambda net, x: net(x))

rows = hnp.arrays(
    np.float32, (3, 5), elements=st.floats(-100, 100, width=32, allow_subnormal=False)
)


def gelu(x: np.ndarray) -> np.ndarray:
    """The tanh form, in double precision."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def normalised(x: np.ndarray, epsilon: float = 1e-6) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)


def doubled(tree):
    """Parameters in double precision, as numpy arrays."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


@settings(max_examples=30)
@given(rows, st.integers(0, 2**31 - 1))
def test_layer_norm_is_numpys(x: np.ndarray, seed: int):
    rng = np.random.default_rng(seed)
    scale, bias = rng.normal(size=5), rng.normal(size=5)
    norm = LayerNorm(5)
    assert np.all(np.asarray(norm.scale) == 1)
    assert np.all(np.asarray(norm.bias) == 0)
    learnt = (scale.astype(np.float32), bias.astype(np.float32))
    norm = eqx.tree_at(lambda n: (n.scale, n.bias), norm, learnt)
    # Centring loses what float32 cannot tell from the mean: up to 1e-7 of it, over the deviation.
    deviation = np.sqrt(np.asarray(x, np.float64).var(-1, keepdims=True) + 1e-6)
    slack = 1e-5 + 4e-7 * np.abs(x).max() / deviation
    expected = normalised(np.asarray(x, np.float64)) * scale + bias
    assert np.all(np.abs(np.asarray(run(norm, x)) - expected) <= slack * (1 + np.abs(scale)))


@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_hidden_layer_is_affine_then_activation_then_norm(layer_norm: bool):
    net = once(partial(MLP, 3, 2, (7, 6), layer_norm=layer_norm))(key=jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(4, 3))
    hidden = x
    exact = doubled(net)
    for layer in exact.layers[:-1]:
        hidden = gelu(hidden @ layer.weight + layer.bias)
        hidden = normalised(hidden) if layer_norm else hidden
    expected = hidden @ exact.layers[-1].weight + exact.layers[-1].bias
    np.testing.assert_allclose(run(net, x), expected, rtol=2e-5, atol=2e-6)
    assert len(net.norms) == (2 if layer_norm else 0)


def test_the_output_has_neither_norm_nor_squash():
    net = once(partial(MLP, 3, 2, (8,), layer_norm=True))(key=jax.random.key(1))
    net = eqx.tree_at(lambda n: n.layers[-1].weight, net, replace_fn=lambda weight: 100 * weight)
    assert np.abs(run(net, np.ones((1, 3)))).max() > 5


def test_kernels_are_glorot_uniform_and_biases_zero():
    """Variance 2 / (in + out), bounded by the square root of three variances."""
    layer = Linear(300, 500, key=jax.random.key(2))
    weight = np.asarray(layer.weight)
    bound = np.sqrt(6 / 800)
    assert np.abs(weight).max() <= bound
    assert np.abs(weight).max() > 0.99 * bound
    np.testing.assert_allclose(weight.var(), 2 / 800, rtol=0.02)
    assert np.all(np.asarray(layer.bias) == 0)


def test_leading_axes_are_batch_axes():
    net = once(partial(MLP, 3, 2, (5,)))(key=jax.random.key(3))
    x = np.asarray(jax.random.normal(jax.random.key(4), (2, 4, 3)))
    one_by_one = np.stack([[run(net, row) for row in block] for block in x])
    np.testing.assert_allclose(run(net, x), one_by_one, rtol=1e-5, atol=1e-6)


def test_an_ensemble_is_its_members_one_by_one():
    made = once(partial(Ensemble, 3, 4, 2, (6, 5), layer_norm=True))
    ensemble = made(key=jax.random.key(5))
    x = jax.random.normal(jax.random.key(6), (7, 4))
    together = np.asarray(run(ensemble, x))
    assert together.shape == (3, 7, 2)
    for i in range(3):
        np.testing.assert_allclose(together[i], run(ensemble.members[i], x), rtol=1e-5, atol=1e-6)
    assert not np.allclose(together[0], together[1])
