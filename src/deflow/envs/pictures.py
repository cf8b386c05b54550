"""Writing frames to files: a film, or a strip of stills."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deflow.core.errors import DeFlowError
from deflow.core.files import written_whole


def check_video(path: str | Path) -> None:
    """Raise `DeFlowError` where `save_video` could not write `path`: ask before drawing."""
    path = Path(path)
    if path.suffix not in (".gif", ".mp4"):
        raise DeFlowError(f"'{path}' is no video that can be written; name it .gif or .mp4.")
    if path.suffix == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise DeFlowError(
            f"'{path}' needs ffmpeg: pip install '.[video]' in a clone of DeFlow, or name the file "
            ".gif."
        )
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise DeFlowError(f"'{path}' cannot be written; its folder is absent or not ours to write.")


def save_video(frames: NDArray[np.uint8], path: str | Path, fps: float = 20) -> None:
    """Write frames [T, height, width, 3] as .gif or .mp4, `fps` of them to the second."""
    check_video(path)
    with written_whole(Path(path)) as temporary:
        if temporary.suffix == ".gif":
            _save_gif(frames, temporary, fps)
        else:
            _save_mp4(frames, temporary, fps)


ROW = 4
"""Stills side by side in a strip."""


def save_strip(frames: NDArray[np.uint8], path: str | Path, n: int = 8) -> None:
    """Write a PNG of `n` frames in rows of `ROW`, evenly spaced from the first to the last."""
    from PIL import Image

    chosen = np.linspace(0, len(frames) - 1, min(n, len(frames))).round().astype(int)
    height, width = frames.shape[1:3]
    strip = np.full((height * -(-len(chosen) // ROW), width * min(ROW, len(chosen)), 3), 255, "u1")
    for place, index in enumerate(chosen):
        top, left = height * (place // ROW), width * (place % ROW)
        strip[top : top + height, left : left + width] = frames[index]
    with written_whole(Path(path)) as temporary:
        Image.fromarray(strip).save(temporary, format="PNG")


def _save_gif(frames: NDArray[np.uint8], path: Path, fps: float) -> None:
    from PIL import Image

    # One palette for the whole film, since a palette for each frame makes the colours flicker; and
    # one that gives a small bright cube its colour before the shades of the floor.
    stills = np.linspace(0, len(frames) - 1, min(8, len(frames))).round().astype(int)
    palette = Image.fromarray(np.hstack(list(frames[stills]))).quantize(
        256, Image.Quantize.MAXCOVERAGE
    )
    images = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    ]
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0
    )


def _save_mp4(frames: NDArray[np.uint8], path: Path, fps: float) -> None:
    import imageio_ffmpeg

    height, width = frames.shape[1:3]
    film = imageio_ffmpeg.write_frames(str(path), (width, height), fps=fps, macro_block_size=2)
    film.send(None)
    for frame in frames:
        film.send(np.ascontiguousarray(frame))
    film.close()
