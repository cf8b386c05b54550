"""A worker process that plays one episode and draws it.

Started by `record_episode` as `python -m deflow.envs.camera CONNECTION`. It is a process of its own
since MuJoCo chooses its way of drawing once, when it is imported.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from deflow.core.errors import DeFlowError
from deflow.envs.make import env_shapes, make_env
from deflow.envs.process import report
from deflow.envs.seeded import SeededEnv


def serve(connection: Connection) -> None:
    """Play as told. Each message out is a JSON header, the observation, and the frame, if any."""
    where = "being made"
    try:
        spec, seed, episode, every = connection.recv()
        made = make_env(spec, render=True)
        env_shapes(made)
        env = SeededEnv(made)
        where = f"episode {episode}, reset"
        observation, done, step = env.reset(seed, episode), False, 0
        while True:
            drawn = _draw(env, spec.name) if done or step % every == 0 else None
            shape = None if drawn is None else drawn.shape
            connection.send_bytes(json.dumps({"done": done, "frame": shape}).encode())
            connection.send_bytes(np.asarray(observation, np.float32).tobytes())
            if drawn is not None:
                connection.send_bytes(drawn.tobytes())
            action = np.frombuffer(connection.recv_bytes(), np.float32).copy()
            step += 1
            where = f"episode {episode}, step {step}"
            observation, _, terminated, truncated, _ = env.step(action)
            done = bool(terminated or truncated)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        with contextlib.suppress(OSError):
            connection.send_bytes(report(error, where))


def _draw(env: SeededEnv, name: str) -> NDArray[np.uint8]:
    draws = type(env.env.unwrapped).render is not gymnasium.Env.render
    frame: Any = env.env.render() if draws else None
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3:
        raise DeFlowError(
            f"The environment '{name}' draws no pictures; let it accept render_mode='rgb_array' "
            "and return an array of shape [height, width, 3] from render()."
        )
    return np.ascontiguousarray(frame, np.uint8)


def main() -> None:
    """Serve the connection whose file descriptor stands on the command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
