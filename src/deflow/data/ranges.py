"""The spread of numbers, ready for JSON: of vectors by columns, of frames by channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from deflow.core.progress import progress_bar

Array = np.ndarray[Any, Any]

_BLOCK = 1 << 24
"""Bytes of frames that are counted at a time."""


def ranges(array: Array) -> dict[str, Any]:
    """Shape and spread of a matrix [rows, columns] and of each of its columns; or of frames in
    bytes [rows, height, width, channels] and of each of their channels."""
    spread = _of_frames(array) if array.ndim == 4 else _of_vectors(array)
    return {"shape": list(array.shape), "dtype": str(array.dtype), **spread}


def spread_of(values: Array) -> dict[str, float]:
    """Least, median, mean and greatest."""
    return {
        "min": float(values.min()),
        "median": float(np.median(values)),
        "mean": float(values.mean(dtype=np.float64)),
        "max": float(values.max()),
    }


def _of_vectors(array: Array) -> dict[str, Any]:
    low, high = array.min(axis=0), array.max(axis=0)
    return {
        "min": float(low.min()),
        "max": float(high.max()),
        "mean": float(array.mean(dtype=np.float64)),
        "std": float(array.std(dtype=np.float64)),
        "column_min": low.tolist(),
        "column_max": high.tolist(),
    }


def _of_frames(array: Array) -> dict[str, Any]:
    """From how often each byte occurs: NumPy's own deviation would take eight times the frames."""
    counts = _histograms(array)
    levels = np.arange(256)
    every = counts.sum(axis=0)
    mean = float(every @ levels / every.sum())
    low = (counts > 0).argmax(axis=1)
    high = 255 - (counts[:, ::-1] > 0).argmax(axis=1)
    return {
        "min": float(low.min()),
        "max": float(high.max()),
        "mean": mean,
        "std": float(every @ (levels - mean) ** 2 / every.sum()) ** 0.5,
        "channel_min": low.tolist(),
        "channel_max": high.tolist(),
    }


def _histograms(array: Array) -> Array:
    """[channels, 256]: how often each byte occurs in each channel."""
    channels = array.shape[-1]
    step = max(1, _BLOCK // max(1, array[0].size))
    counts = np.zeros((channels, 256), np.int64)
    with progress_bar(transient=True) as bar:
        task = bar.add_task("levels of the frames", total=len(array), note="")
        for start in range(0, len(array), step):
            block = array[start : start + step]
            for channel in range(channels):
                counts[channel] += np.bincount(block[..., channel].reshape(-1), minlength=256)
            bar.advance(task, len(block))
    return counts
