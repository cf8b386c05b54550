"""Orthogonal kernels, alone and in families."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from deflow.nn.orthogonal import orthogonal_kernel


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (6, 6)])
def test_rows_or_columns_are_orthonormal(shape: tuple[int, int]):
    kernel = np.asarray(orthogonal_kernel(jax.random.key(0), shape, 0.5))
    assert kernel.shape == shape
    singular = np.linalg.svd(kernel, compute_uv=False)
    np.testing.assert_allclose(singular, 0.5, rtol=1e-5)


def test_a_familys_kernels_are_its_members_and_are_decomposed_one_at_a_time():
    """A batch of decompositions waits for ever on two cores; as a test it would, too."""
    keys = jax.random.split(jax.random.key(1), 3)
    build = jax.jit(jax.vmap(lambda key: orthogonal_kernel(key, (8, 4), 1.0)))
    lapack = [line for line in build.lower(keys).as_text().splitlines() if "@lapack_" in line]
    assert lapack
    assert not any("tensor<3x" in line for line in lapack)
    alone = [orthogonal_kernel(key, (8, 4), 1.0) for key in keys]
    np.testing.assert_allclose(build(keys), np.stack(alone), atol=1e-6)
