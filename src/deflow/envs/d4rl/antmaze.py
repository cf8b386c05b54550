"""D4RL's ant mazes (v2): OGBench's ant in D4RL's mazes, under D4RL's rules."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit
from ogbench.locomaze.ant import AntEnv

from deflow.core.errors import DeFlowError
from deflow.envs.d4rl.mazes import MAPS
from deflow.envs.d4rl.model import Floats, ModelEnv

CELL = 4.0
"""The side of a maze's cell."""
WALL_HEIGHT = 0.5
"""Of a cell's side."""
TOLERANCE = 0.5
"""How near to the goal counts as reached."""
NOISE = 0.1
"""Half the width of a start's noise in positions, and the deviation of that in velocities."""
START = (1, 1)

GOALS = {"umaze": (3, 1), "medium": (6, 6), "large": (7, 9)}
HORIZONS = {"umaze": 700, "medium": 1000, "large": 1000}


def make(first: str, rest: str, render_mode: str | None) -> gymnasium.Env[Any, Any]:
    """The ant maze that scores `antmaze-<rest>`, with its time limit."""
    size = rest.split("-")[0]
    if size not in MAPS or not rest.endswith("-v2"):
        raise DeFlowError(
            f"There is no ant maze for {f'{first}-{rest}'!r}; mazes are {', '.join(MAPS)}, of "
            "version 2, such as 'antmaze-large-play-v2'."
        )
    return TimeLimit(AntMaze(size, render_mode), HORIZONS[size])


class AntMaze(ModelEnv):
    """One of D4RL's three ant mazes.

    Observations [29] are positions and velocities; the goal is not among them. Every episode starts
    in the first cell, the origin, with the ant's own small noise, and draws a goal: the goal cell's
    centre plus U(0, 1) + U(0, 0.5) in each direction. The reward is 1 at the goal, where the
    episode ends, and 0 elsewhere.
    """

    def __init__(self, size: str, render_mode: str | None = None) -> None:
        self.maze = MAPS[size]
        self.goal_cell = cell_xy(GOALS[size])
        self.goal = self.goal_cell
        rows, columns = len(self.maze), len(self.maze[0])
        x, y = cell_xy((rows - 1, columns - 1)) / 2 - CELL / 2
        extent = CELL * max(rows, columns)
        super().__init__(_model(self.maze), 5, 10, (x, y), extent, render_mode)

    def reset_model(self) -> Floats:
        """Draw a goal and put the ant into the first cell."""
        near, far = self.np_random.uniform(0, CELL / 4, 2), self.np_random.uniform(0, CELL / 8, 2)
        self.goal = np.maximum(self.goal_cell + near + far, 0)
        self.model.geom("target").pos[:2] = self.goal
        self.place(
            self.init_qpos + self.np_random.uniform(-NOISE, NOISE, self.model.nq),
            self.init_qvel + NOISE * self.np_random.standard_normal(self.model.nv),
        )
        return self.observe()

    def step(self, action: Any) -> tuple[Floats, np.float64, bool, bool, dict[str, np.float64]]:
        """Move; the state after the move is scored."""
        observation = self.move(action)
        reached = bool(np.linalg.norm(self.data.qpos[:2] - self.goal) <= TOLERANCE)
        score = np.float64(reached)
        return observation, score, reached, False, {"success": score}


def cell_xy(cell: tuple[int, int]) -> Floats:
    """The centre (x, y) of a cell (row, column); the first cell inside the walls is the origin."""
    row, column = cell
    return np.array([(column - START[1]) * CELL, (row - START[0]) * CELL])


def _model(maze: tuple[str, ...]) -> str:
    tree: Any = ET.parse(AntEnv.xml_file)
    world = tree.find(".//worldbody")
    half, height = CELL / 2, CELL * WALL_HEIGHT / 2
    for row, line in enumerate(maze):
        for column, tile in enumerate(line):
            if tile == "#":
                x, y = cell_xy((row, column))
                ET.SubElement(
                    world,
                    "geom",
                    name=f"block_{row}_{column}",
                    type="box",
                    pos=f"{x} {y} {height}",
                    size=f"{half} {half} {height}",
                    contype="1",
                    conaffinity="1",
                    material="wall",
                )
    ET.SubElement(
        world,
        "geom",
        name="target",
        type="cylinder",
        size=f"{TOLERANCE} 0.05",
        pos="0 0 0.05",
        material="target",
        contype="0",
        conaffinity="0",
    )
    return ET.tostring(tree.getroot(), encoding="unicode")
