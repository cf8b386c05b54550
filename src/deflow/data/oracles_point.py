"""The point-maze recipe `navigate`: walk to one random goal after another along shortest paths."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from deflow.data.recipes import Episode, Recipe, Rows, seed_episode
from deflow.data.simulator import make_env

Cell = tuple[int, int]


class PointCollector:
    """Plays point-maze episodes; needs no trained expert, a direction is the action."""

    noise = 0.5
    """Deviation of the Gaussian that is added to an action."""

    def __init__(self, recipe: Recipe) -> None:
        self._env = make_env(
            f"{recipe.environment}-v0", terminate_at_goal=False, max_episode_steps=recipe.steps
        )
        self._maze = cast(Any, self._env.unwrapped)
        self._free, self._vertices = _cells(self._maze.maze_map)

    def collect(self, seed: np.random.SeedSequence) -> Episode | None:
        rng = seed_episode(self._env, seed)
        start, goal = _choose(rng, self._free), _choose(rng, self._vertices)
        rows = Rows()
        ob, _ = self._env.reset(options={"task_info": {"init_ij": start, "goal_ij": goal}})
        done = False
        while not done:
            position = self._maze.get_xy()
            subgoal, _ = self._maze.get_oracle_subgoal(position, self._maze.cur_goal_xy)
            direction = (subgoal - position) / (np.linalg.norm(subgoal - position) + 1e-6)
            action = self.mean_action(ob, direction)
            action = np.clip(action + rng.normal(0.0, self.noise, size=len(action)), -1.0, 1.0)
            next_ob, _, terminated, truncated, info = self._env.step(action)
            done = terminated or truncated
            if info["success"]:
                self._maze.set_goal(_choose(rng, self._vertices))
            rows.append(
                observations=ob,
                actions=action,
                terminals=done,
                qpos=info["prev_qpos"],
                qvel=info["prev_qvel"],
            )
            ob = next_ob
        return rows.stack()

    def mean_action(
        self, observation: NDArray[np.floating[Any]], direction: NDArray[np.floating[Any]]
    ) -> NDArray[np.floating[Any]]:
        """What the body does to go in a unit direction."""
        return direction


def _choose(rng: np.random.Generator, cells: list[Cell]) -> Cell:
    return cells[int(rng.integers(len(cells)))]


def _cells(maze: np.ndarray[Any, Any]) -> tuple[list[Cell], list[Cell]]:
    """Free cells, and of these the vertices: all but the insides of straight hallways."""
    free = [(int(i), int(j)) for i, j in np.argwhere(maze == 0)]

    def hallway(i: int, j: int) -> bool:
        rows = maze[i - 1, j] == 0 and maze[i + 1, j] == 0
        columns = maze[i, j - 1] == 0 and maze[i, j + 1] == 0
        walled_rows = maze[i - 1, j] == 1 and maze[i + 1, j] == 1
        walled_columns = maze[i, j - 1] == 1 and maze[i, j + 1] == 1
        return bool((rows and walled_columns) or (columns and walled_rows))

    return free, [cell for cell in free if not hallway(*cell)]
