"""Filming one episode, where this machine can draw."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from deflow.core.errors import DeFlowError
from deflow.envs.make import EnvSpec
from deflow.envs.process import check, ending, start, stop
from deflow.envs.rollout import Act

PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco/>")
renderer = mujoco.Renderer(model, 8, 8)
renderer.update_scene(mujoco.MjData(model))
renderer.render()
"""

HINT = (
    "to draw without a display, install EGL with Mesa (Debian: libegl1 and libgl1-mesa-dri) "
    "or OSMesa (Debian: libosmesa6)"
)
"""What helps where `rendering_backend` finds nothing."""


@functools.cache
def rendering_backend() -> str | None:
    """The value of MUJOCO_GL with which MuJoCo can draw here, or None.

    The caller's own choice is tried first. Each trial is a process of its own, since loading a
    broken OpenGL can abort the process; it takes about a second.
    """
    usual = ("cgl",) if sys.platform == "darwin" else ("egl", "osmesa")
    choices: tuple[str, ...] = (os.environ.get("MUJOCO_GL", ""), *usual)
    for name in dict.fromkeys(choices):
        if name and _draws(name):
            return name
    return None


def _draws(name: str) -> bool:
    try:
        trial = subprocess.run(
            [sys.executable, "-c", PROBE],
            env={**os.environ, "MUJOCO_GL": name},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=20,
        )
    except subprocess.TimeoutExpired:
        return False
    return trial.returncode == 0


def record_episode(
    spec: EnvSpec, act: Act, seed: int, episode: int, every: int = 1
) -> NDArray[np.uint8]:
    """Frames [T, height, width, 3] of one episode: the first, each `every`-th step's, and the last.

    `act` is called as by `rollout`, with one member and one slot; seed and episode mean the same,
    so this is the episode that was evaluated. Raises `DeFlowError` where drawing does not work.
    """
    return np.stack(list(_frames(spec, act, seed, episode, every)))


def _frames(
    spec: EnvSpec, act: Act, seed: int, episode: int, every: int
) -> Iterator[NDArray[np.uint8]]:
    backend = rendering_backend()
    variables = {"MUJOCO_GL": backend} if backend else {}
    connection, process = start("deflow.envs.camera", variables=variables)
    number, step = np.full((1, 1), episode, np.int32), 0
    try:
        connection.send((spec, seed, episode, every))
        while True:
            header = json.loads(connection.recv_bytes())
            check(header, spec.name)
            observation = np.frombuffer(connection.recv_bytes(), np.float32)
            if header["frame"]:
                frame = np.frombuffer(connection.recv_bytes(), np.uint8)
                yield frame.reshape(header["frame"])
            if header["done"]:
                return
            action = act(observation[None, None], number, np.full((1, 1), step, np.int32))
            step += 1
            connection.send_bytes(np.clip(action[0, 0], -1, 1).astype(np.float32).tobytes())
    except (EOFError, OSError) as error:
        advice = "its last words are above" if backend else HINT
        raise DeFlowError(
            f"The process that films '{spec.name}' died ({ending(process)}); {advice}."
        ) from error
    except DeFlowError as error:
        if backend:
            raise
        raise DeFlowError(f"{str(error).rstrip('.')}; {HINT}.") from error
    finally:
        connection.close()
        stop(process)
