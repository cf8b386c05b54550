"""D4RL's Maze2D (v1, sparse), built from the facts of its published model."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

from deflow.core.errors import DeFlowError
from deflow.envs.d4rl import mazes
from deflow.envs.d4rl.model import Floats, ModelEnv

TOLERANCE = 0.5
"""How near to the goal is rewarded."""
FASTEST = 5.0
"""Speed in each direction to which the ball is held before every step."""
NOISE = 0.1
"""Half the width of a start's noise in position, and the deviation of that in velocity."""

GOALS = {"umaze": (1, 1), "medium": (6, 6), "large": (7, 9)}


def _with_goal(maze: tuple[str, ...], cell: tuple[int, int]) -> tuple[str, ...]:
    row, column = cell
    line = maze[row][:column] + "G" + maze[row][column + 1 :]
    return (*maze[:row], line, *maze[row + 1 :])


MAPS = {size: _with_goal(maze, GOALS[size]) for size, maze in mazes.MAPS.items()}
"""Rows are the first coordinate, columns the second, of observations and of the goal."""
HORIZONS = {"umaze": 300, "medium": 600, "large": 800}

_MODEL = """
<mujoco model="maze2d">
  <compiler inertiafromgeom="true" angle="radian"/>
  <option timestep="0.01" gravity="0 0 0" iterations="20" integrator="Euler"/>
  <default>
    <joint damping="1" limited="false"/>
    <geom friction="0.5 0.1 0.1" density="1000" margin="0.002" condim="1" contype="2"
          conaffinity="1"/>
  </default>
  <worldbody>
    <light directional="true" pos="0 0 10" dir="0 0 -1"/>
    <geom name="ground" type="plane" size="40 40 0.25" pos="0 0 -0.1" contype="1" conaffinity="0"
          rgba="0.2 0.3 0.4 1"/>
    <body name="ball" pos="1.2 1.2 0">
      <geom name="ball" type="sphere" size="0.1" contype="1" rgba="0.3 0.6 0.3 1"/>
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
    </body>
    <site name="goal" pos="{goal_x} {goal_y} 0" size="0.2" rgba="0.6 0.3 0.3 1"/>
    {walls}
  </worldbody>
  <actuator>
    <motor joint="x" ctrlrange="-1 1" ctrllimited="true" gear="100"/>
    <motor joint="y" ctrlrange="-1 1" ctrllimited="true" gear="100"/>
  </actuator>
</mujoco>
"""


def make(first: str, rest: str, render_mode: str | None) -> gymnasium.Env[Any, Any]:
    """The maze that scores `maze2d-<rest>`, with its time limit."""
    size, _, version = rest.partition("-")
    if size not in MAPS or version != "v1":
        raise DeFlowError(
            f"There is no maze for {f'{first}-{rest}'!r}; mazes are {', '.join(MAPS)}, of version "
            "1 and sparse reward, such as 'maze2d-umaze-v1'."
        )
    return TimeLimit(Maze2D(size, render_mode), HORIZONS[size])


class Maze2D(ModelEnv):
    """A ball pushed through one of D4RL's three mazes.

    Observations [4] are position and velocity, actions [2] forces. Every episode starts in a
    uniformly drawn free cell; the goal is fixed. The reward is 1 within 0.5 of the goal and 0
    elsewhere, and no episode ends before its time limit. `info["success"]` is 1.0 from the moment
    the goal was first reached in the episode.
    """

    def __init__(self, size: str, render_mode: str | None = None) -> None:
        self.maze = MAPS[size]
        self.goal = np.array(_tiles(self.maze, "G")[0], np.float64)
        self.free = np.array(_tiles(self.maze, " ") + _tiles(self.maze, "G"), np.float64)
        self._reached = False
        rows, columns = len(self.maze), len(self.maze[0])
        middle = (rows / 2 + 0.5, columns / 2 + 0.5)
        model = _model(self.maze, self.goal)
        super().__init__(model, 1, 100, middle, max(rows, columns), render_mode)

    def reset_model(self) -> Floats:
        """Put the ball into a free cell."""
        cell = self.free[self.np_random.integers(len(self.free))]
        self.place(
            cell + self.np_random.uniform(-NOISE, NOISE, 2),
            self.np_random.normal(0, NOISE, 2),
        )
        self._reached = False
        return self.observe()

    def step(self, action: Any) -> tuple[Floats, np.float64, bool, bool, dict[str, np.float64]]:
        """Push; the state after the push is scored."""
        self.place(self.data.qpos, np.clip(self.data.qvel, -FASTEST, FASTEST))
        observation = self.move(np.clip(action, -1, 1))
        at_goal = bool(np.linalg.norm(observation[:2] - self.goal) <= TOLERANCE)
        self._reached |= at_goal
        info = {"success": np.float64(self._reached)}
        return observation, np.float64(at_goal), False, False, info


def _tiles(maze: tuple[str, ...], wanted: str) -> list[tuple[int, int]]:
    return [(i, j) for i, line in enumerate(maze) for j, tile in enumerate(line) if tile == wanted]


def _model(maze: tuple[str, ...], goal: Floats) -> str:
    # Walls stand one off the grid of observations and the ball 1.2 off it, as in D4RL.
    walls = "\n    ".join(
        f'<geom name="wall_{i}_{j}" type="box" conaffinity="1" pos="{i + 1} {j + 1} 0" '
        'size="0.5 0.5 0.2" rgba="0.7 0.5 0.3 1"/>'
        for i, j in _tiles(maze, "#")
    )
    return _MODEL.format(goal_x=goal[0] + 1, goal_y=goal[1] + 1, walls=walls)
