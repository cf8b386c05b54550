"""DeFlow and FQL from frames: `python benchmarks/pixels.py --data-dir DIR`.

Generates episodes of visual-cube-single (a fifth of a second a frame without a graphics card),
counts the memory of a stored frame, draws stacks beside their random shifts, and trains both agents
for a few hundred steps. Writes `benchmarks/results/pixels.json` and
`docs/images/augmented.png`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from committed import made_by, write_result
from deflow import train
from deflow.agents.registry import from_settings, preset
from deflow.agents.shared.shifted import PAD, draw_offsets, shift
from deflow.core.frames import STACK
from deflow.data.dataset import Dataset
from deflow.data.generate import generate
from deflow.data.names import parse_task
from deflow.data.visual import load_training
from deflow.training.curve import save_figure
from deflow.training.device_data import DeviceData
from deflow.training.run_folder import RunFolder
from deflow.training.task import env_name

TASK = "visual-cube-single-play-singletask-task1-v0"

SHOWN, BRIGHTER = 5, 1.8
"""Stacks in the picture, and by how much its dark scene is brightened there."""


def memory(dataset: Dataset, device: DeviceData) -> dict[str, Any]:
    """Bytes of a stored frame, with all that a row holds beside it, against the frame's own."""
    frame = int(np.prod(dataset.observations.shape[1:]))
    count = len(dataset.observations)
    shared = device.observations.unsafe_buffer_pointer() == dataset.observations.ctypes.data
    arrays = [leaf.nbytes for leaf in jax.tree.leaves(device)]
    kept = dataset.nbytes + sum(arrays) - (device.observations.nbytes if shared else 0)
    return {
        "frames": count,
        "bytes_of_a_frame": frame,
        "kept_per_frame": round(kept / count, 1),
        "kept_over_frame": round(kept / count / frame, 4),
        "device_shares_the_hosts_bytes": bool(shared),
    }


def picture(device: DeviceData, path: Path, seed: int = 0) -> None:
    """Each row a stack: its frames as they are, then shifted; oldest first, brightened."""
    batch_key, shift_key = jax.random.split(jax.random.key(seed))
    batch = device.sample(batch_key, SHOWN, {})
    offsets = draw_offsets(shift_key, SHOWN)
    while (offsets == offsets[0, 0]).all():  # A batch that is left alone shows nothing.
        shift_key, _ = jax.random.split(shift_key)
        offsets = draw_offsets(shift_key, SHOWN)
    stacks = np.asarray(batch.observations), np.asarray(shift(batch.observations, offsets))
    figure = Figure(figsize=(6.6, 5.1), layout="constrained")
    panels = figure.subplots(SHOWN, 2 * STACK)
    for row, before, after, offset in zip(panels, *stacks, np.asarray(offsets), strict=True):
        frames = [*np.split(before, STACK, axis=-1), *np.split(after, STACK, axis=-1)]
        for axes, frame in zip(row, frames, strict=True):
            axes.imshow(np.minimum(BRIGHTER * frame.astype(float), 255).astype(np.uint8))
            axes.set(xticks=[], yticks=[])
        down, right = PAD - offset
        row[STACK].set_ylabel(
            f"{abs(down)} {'down' if down >= 0 else 'up'}\n"
            f"{abs(right)} {'right' if right >= 0 else 'left'}",
            rotation=0,
            labelpad=20,
            size=8,
            va="center",
        )
    for i, axes in enumerate(panels[0]):
        age = STACK - 1 - i % STACK
        when = f"t - {age}" if age else "t"
        axes.set_title(f"{'as stored' if i < STACK else 'shifted'}, {when}", size=8)
    save_figure(figure, path)


def learned(folder: RunFolder, steps: int) -> dict[str, Any]:
    """Losses of a run's first and last interval, and its pace."""
    lines = folder.read_lines(folder.metrics)
    losses = [name for name in lines[-1] if name.endswith("loss")]
    return {
        "steps": steps,
        "seconds_per_step": round(lines[-1]["train_seconds"] / steps, 4),
        "first": {name: lines[0][name] for name in losses},
        "last": {name: lines[-1][name] for name in losses},
        "finite": all(np.isfinite(line[name]) for line in lines for name in losses),
    }


def main() -> None:
    """Data, memory, picture, training, JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("runs/pixels/data"))
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--rows", type=int, help="rows of an episode, for a trial")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--agents", nargs="*", default=["deflow", "fql"])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=32, help="256 in published runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pixels.json"))
    parser.add_argument("--image", type=Path, default=Path("docs/images/augmented.png"))
    options = parser.parse_args()
    task = parse_task(TASK)
    began = time.perf_counter()
    generate(
        task.dataset,
        episodes=options.episodes,
        workers=options.workers,
        data_dir=options.data_dir,
        steps=options.rows,
    )
    document: dict[str, Any] = {
        "task": TASK,
        "episodes": options.episodes,
        "batch_size": options.batch_size,
        "generation_seconds": round(time.perf_counter() - began, 1),
    }
    dataset = load_training(task, options.data_dir, download=False)
    device = DeviceData.from_dataset(dataset)
    document["memory"] = memory(dataset, device)
    picture(device, options.image)
    del device
    every = max(1, options.steps // 10)
    for name in options.agents:
        settings = {**preset(name, env_name(TASK)), "batch_size": options.batch_size}
        with tempfile.TemporaryDirectory() as folder:
            run = train(
                TASK,
                from_settings(name, settings),
                dataset=dataset,
                steps=options.steps,
                chunk=every,
                log_every=every,
                checkpoint_every=options.steps,
                eval_every=options.steps,
                eval_episodes=0,
                run_dir=Path(folder) / name,
            )
            document[name] = learned(run, options.steps)
        print(name, json.dumps(document[name]), flush=True)
    about = {"name": TASK, "fingerprint": dataset.fingerprint()}
    document["provenance"] = made_by("python benchmarks/pixels.py", about)
    write_result(options.out, document)


if __name__ == "__main__":
    main()
