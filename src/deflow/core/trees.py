"""Trees by the names of their leaves."""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import PyTree


def path_name(path: Any) -> str:
    """A leaf's path as one word, with dots between the names."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by their names."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {path_name(path): leaf for path, leaf in flat}
