"""The encoder against a plain reference, and what stands behind it."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.compiled import once

from deflow.behavior.flow import VectorField, integrate
from deflow.core.frames import FEATURES
from deflow.nn.encoder import STACKS, Encoded, Encoder, behind_encoder, max_pool, opened
from deflow.value.td import Critic

run = once(lambda net, *inputs: net(*inputs))

FRAME = (9, 7, 6)
"""Odd sizes, which no padding fits by chance."""


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(FRAME, key=jax.random.key(0))


def frames(*batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*batch, *FRAME), np.uint8)


def plain(encoder: Encoder, frame: np.ndarray) -> np.ndarray:
    """The same of one frame, pixel by pixel in double precision."""

    def convolve(x: np.ndarray, conv: object) -> np.ndarray:
        weight, bias = np.asarray(conv.weight, np.float64), np.asarray(conv.bias)  # type: ignore
        wide = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        out = np.zeros((*x.shape[:2], weight.shape[-1]))
        for i, j in np.ndindex(*x.shape[:2]):
            out[i, j] = np.einsum("hwc,hwco->o", wide[i : i + 3, j : j + 3], weight) + bias
        return out

    def pool(x: np.ndarray) -> np.ndarray:
        # SAME: what is missing for the last window is put half before, the rest after.
        sizes = [math.ceil(n / 2) for n in x.shape[:2]]
        before = [max((m - 1) * 2 + 3 - n, 0) // 2 for m, n in zip(sizes, x.shape, strict=False)]
        out = np.zeros((*sizes, x.shape[2]))
        for i, j in np.ndindex(*sizes):
            top, left = 2 * i - before[0], 2 * j - before[1]
            window = x[max(top, 0) : top + 3, max(left, 0) : left + 3]
            out[i, j] = window.max((0, 1))
        return out

    x = frame.astype(np.float64) / 255
    for stack in encoder.stacks:
        x = pool(convolve(x, stack.first))
        inner = x
        for conv in stack.block:
            inner = convolve(np.maximum(inner, 0), conv)
        x = x + inner
    flat = np.maximum(x, 0).reshape(-1)
    y = flat @ np.asarray(encoder.last.weight, np.float64) + np.asarray(encoder.last.bias)
    return 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))


def test_it_agrees_with_a_plain_reference(encoder: Encoder):
    some = frames(2)
    found = np.asarray(run(encoder, some))
    assert found.shape == (2, FEATURES)
    for frame, ours in zip(some, found, strict=True):
        np.testing.assert_allclose(ours, plain(encoder, frame), rtol=1e-4, atol=1e-6)


def test_kernels_begin_as_xaviers_uniform_ones():
    found = Encoder((64, 64, 9), key=jax.random.key(1))
    assert [stack.first.weight.shape[-1] for stack in found.stacks] == list(STACKS)
    assert found.last.weight.shape == (8 * 8 * 32, FEATURES)
    for stack in found.stacks:
        for conv in (stack.first, *stack.block):
            into, out = (9 * n for n in conv.weight.shape[2:])
            bound = math.sqrt(6 / (into + out))
            largest = float(np.abs(conv.weight).max())
            assert 0.98 * bound < largest <= bound
            assert not np.asarray(conv.bias).any()


def test_the_pool_looks_no_further_than_the_edge():
    assert np.max(once(max_pool)(-np.ones((1, 4, 4, 1)))) == -1


def test_leading_axes_are_kept(encoder: Encoder):
    some = frames(2, 1)
    found = np.asarray(run(encoder, some))
    assert found.shape == (2, 1, FEATURES)
    np.testing.assert_allclose(found[:, 0], run(encoder, some[:, 0]), rtol=1e-6)


def test_states_have_no_encoder_and_the_same_network_as_ever():
    key = jax.random.key(3)
    make = lambda key: Critic(5, 2, (8,), key=key)  # noqa: E731
    ours, theirs = behind_encoder(None, key, make), make(key)
    assert isinstance(ours, Critic)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(one, other)
    assert opened(ours, jnp.ones(5))[0] is ours


def test_a_flow_encodes_its_observations_once():
    make = lambda key: VectorField(FEATURES, 2, (8,), key=key)  # noqa: E731
    field = behind_encoder(FRAME, jax.random.key(4), make)
    seen, x0 = frames(3), np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 4, 2)
    program = str(jax.make_jaxpr(lambda o, x: integrate(field, o[:, None], x, 5))(seen, x0))
    assert program.count("conv_general_dilated[") == 3 * len(STACKS)
    reach = once(integrate, static_argnums=3)
    ours = reach(field, seen[:, None], x0, 5)
    theirs = reach(field.net, np.asarray(run(field.encoder, seen))[:, None], x0, 5)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_an_ensemble_shares_one_encoder_over_several_actions():
    make = lambda key: Critic(FEATURES, 2, (8,), count=3, key=key)  # noqa: E731
    critic = behind_encoder(FRAME, jax.random.key(5), make)
    assert isinstance(critic, Encoded)
    seen, actions = frames(2), np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 4, 2)
    q = np.asarray(run(critic, seen[:, None], actions))
    assert q.shape == (3, 2, 4)
    program = str(jax.make_jaxpr(critic)(seen[:, None], actions))
    assert program.count("conv_general_dilated[") == 3 * len(STACKS)
    np.testing.assert_allclose(q[:, :, 1], run(critic, seen, actions[:, 1]), rtol=1e-4, atol=1e-5)
