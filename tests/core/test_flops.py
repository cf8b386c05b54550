"""Counts of products against counts by hand."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deflow.core.flops import product_flops
from deflow.nn.mlp import MLP

SIZES = st.integers(1, 9)


@settings(max_examples=20)
@given(rows=SIZES, inner=SIZES, columns=SIZES, batch=SIZES)
def test_a_product_is_two_operations_for_each_multiply_and_add(
    rows: int, inner: int, columns: int, batch: int
):
    left, right = jnp.zeros((batch, rows, inner)), jnp.zeros((batch, inner, columns))
    expected = 2 * batch * rows * inner * columns
    assert product_flops(jnp.matmul, left, right) == expected
    turned = lambda a, b: jnp.einsum("bri,bic->cbr", a, b)  # noqa: E731
    assert product_flops(jax.jit(turned), left, right) == expected
    assert product_flops(jax.vmap(jnp.matmul), left, right) == expected


def test_a_network_forward_and_backward():
    rows, sizes = 32, (7, 16, 24, 3)
    net = MLP(7, 3, (16, 24), layer_norm=True, key=jax.random.key(0))
    x = jax.ShapeDtypeStruct((rows, 7), jnp.float32)
    layers = [2 * rows * a * b for a, b in itertools.pairwise(sizes)]
    forward = sum(layers)
    assert product_flops(lambda net, x: net(x), net, x) == forward

    def loss(net: MLP, x: jax.Array) -> jax.Array:
        return jnp.square(net(x)).mean()

    # Back: the weights' gradients cost as much again; so do the inputs', but for the first layer.
    assert product_flops(jax.grad(loss), net, x) == 3 * forward - layers[0]
    assert product_flops(jax.grad(loss, argnums=1), net, x) == 2 * forward


@pytest.mark.parametrize("length", [1, 10])
def test_a_scan_counts_as_often_as_it_turns(length: int):
    w, x = jnp.zeros((5, 5)), jnp.zeros((3, 5))
    once = 2 * 3 * 5 * 5

    def turned(w: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, length=length)[0]

    assert product_flops(turned, w, x) == length * once
    assert product_flops(jax.grad(lambda w, x: turned(w, x).sum()), w, x) == 3 * length * once
    within = lambda w, x: jax.lax.fori_loop(0, 4, lambda _, c: turned(w, c), x)  # noqa: E731
    assert product_flops(within, w, x) == 4 * length * once


def test_of_a_cond_the_dearest_branch_counts():
    w, x = jnp.zeros((5, 5)), jnp.zeros((3, 5))

    def chosen(w: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.cond(x.sum() > 0, lambda: x @ w @ w, lambda: x @ w)

    assert product_flops(chosen, w, x) == 2 * 2 * 3 * 5 * 5


def test_a_loop_without_an_end_in_sight_is_refused_where_it_holds_products():
    def halved(w: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda c: c.sum() > 1, lambda c: c / 2, w)

    def multiplied(w: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda c: c.sum() > 1, lambda c: c @ c, w)

    assert product_flops(halved, jnp.zeros((3, 3))) == 0
    with pytest.raises(ValueError, match="while"):
        product_flops(multiplied, jnp.zeros((3, 3)))


@settings(max_examples=10)
@given(side=SIZES, batch=SIZES, before=SIZES, after=SIZES)
def test_a_convolution_reads_its_kernel_at_every_place(
    side: int, batch: int, before: int, after: int
):
    def convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)

    frames, kernel = jnp.zeros((batch, side, side, before)), jnp.zeros((3, 3, before, after))
    assert product_flops(convolved, frames, kernel) == 2 * batch * side**2 * 9 * before * after
