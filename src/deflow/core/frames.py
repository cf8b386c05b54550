"""What every room knows of tasks that are seen; without jax, since worker processes import it."""

from __future__ import annotations

STACK = 3
"""Frames, the last of them the present one, that make an observation."""

Frame = tuple[int, int, int]
"""Height, width and channels of a picture."""

FEATURES = 512
"""Numbers that an encoder makes of an observation."""
