"""An environment around a model given as text."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.spaces import Box
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class ModelEnv(MujocoEnv):
    """Positions and velocities are observed; the camera looks from above at the whole plan.

    Args:
        xml: the model in MuJoCo's format.
        frame_skip: simulation steps for each step of the environment.
        fps: steps of the environment in a simulated second.
        middle: (x, y) of the plan.
        extent: its longer side.
        render_mode: as in Gymnasium.
    """

    def __init__(
        self,
        xml: str,
        frame_skip: int,
        fps: int,
        middle: tuple[float, float],
        extent: float,
        render_mode: str | None,
    ) -> None:
        self.metadata = {
            "render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"],
            "render_fps": fps,
        }
        camera: Any = {
            "lookat": np.array([*middle, 0.0]),
            "distance": 1.3 * extent,
            "elevation": -90.0,
        }
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.xml"
            file.write_text(xml)
            super().__init__(
                str(file),
                frame_skip,
                observation_space=None,
                render_mode=render_mode,
                default_camera_config=camera,
            )
        width = self.model.nq + self.model.nv
        self.observation_space = Box(-np.inf, np.inf, (width,), np.float64)

    def observe(self) -> Floats:
        """Positions, then velocities."""
        return np.concatenate([self.data.qpos, self.data.qvel])

    def place(self, positions: Floats, velocities: Floats) -> None:
        """Put everything where it is said to be."""
        self.data.qpos[:], self.data.qvel[:] = positions, velocities
        mujoco.mj_forward(self.model, self.data)

    def move(self, action: Any) -> Floats:
        """Simulate one step under controls; returns what is observed after it."""
        self.do_simulation(action, self.frame_skip)
        if self.render_mode == "human":
            cast(Any, self).render()
        return self.observe()
