"""D4RL's mazes: maps cell by cell, starts, goals, rewards, and how the ant and the ball move."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from tests.envs.d4rl import made

from deflow.envs.make import quiet


def ogbench_ant(size: str) -> Any:
    with quiet():
        import ogbench  # noqa: F401

        return gymnasium.make(f"antmaze-{size}-v0", disable_env_checker=True).unwrapped


def walls(world: Any, prefix: str) -> dict[str, tuple[float, ...]]:
    found = {}
    for index in range(world.model.ngeom):
        geom = world.model.geom(index)
        if geom.name.startswith(prefix):
            numbers = (*geom.pos, *geom.size, *geom.contype, *geom.conaffinity, *geom.friction)
            found[geom.name] = tuple(float(number) for number in numbers)
    return found


@pytest.mark.parametrize("size", ["medium", "large"])
def test_the_maps_are_ogbenchs_cell_by_cell(size: str) -> None:
    ours, theirs = made(f"antmaze-{size}-play-v2").unwrapped, ogbench_ant(size)
    cells = [[int(tile == "#") for tile in line] for line in ours.maze]
    np.testing.assert_array_equal(cells, theirs.maze_map)
    assert walls(ours, "block") == walls(theirs, "block")
    row, column = (6, 6) if size == "medium" else (7, 9)
    assert ours.maze[row][column] == " "
    np.testing.assert_array_equal(ours.goal_cell, theirs.ij_to_xy((row, column)))
    np.testing.assert_array_equal(theirs.ij_to_xy((1, 1)), (0, 0))


def test_the_u_maze_is_a_u() -> None:
    world = made("antmaze-umaze-v2").unwrapped
    assert len(walls(world, "block")) == 25 - 7
    np.testing.assert_array_equal(world.goal_cell, (0, 8))
    # The way from the start to the goal leads around the middle wall.
    assert [world.maze[i][j] for i, j in ((1, 1), (1, 3), (2, 3), (3, 3), (3, 1))] == [" "] * 5
    assert [world.maze[2][j] for j in (1, 2)] == ["#"] * 2


def test_the_ant_moves_as_ogbenchs_does() -> None:
    ours, theirs = made("antmaze-medium-play-v2").unwrapped, ogbench_ant("medium")
    start, _ = ours.reset(seed=1)
    theirs.reset(seed=1)
    theirs.set_state(start[:15], start[15:])
    theirs.data.qacc_warmstart[:] = ours.data.qacc_warmstart
    for action in np.random.default_rng(0).uniform(-1, 1, (60, 8)):
        np.testing.assert_allclose(ours.step(action)[0], theirs.step(action)[0], atol=1e-9)


@pytest.mark.parametrize("name", ["antmaze-umaze-v2", "antmaze-large-play-v2"])
def test_starts_and_goals_are_distributed_as_in_d4rl(name: str) -> None:
    env = made(name).unwrapped
    starts, goals = [], []
    for episode in range(1500):
        observation, _ = env.reset(seed=episode)
        starts.append(observation)
        goals.append(env.goal - env.goal_cell)
    start, goal = np.array(starts), np.array(goals)
    assert np.abs(start[:, :2]).max() <= 0.1  # no start cell's noise, only the ant's own
    np.testing.assert_allclose(start[:, :2].std(axis=0), 0.1 / 3**0.5, rtol=0.1)
    np.testing.assert_allclose(start[:, 2].mean(), 0.75, atol=0.01)
    np.testing.assert_allclose(start[:, 15:].std(), 0.1, rtol=0.05)
    # U(0, 1) + U(0, 1/2): a trapezoid, its distribution known in closed form.
    assert goal.min() >= 0
    assert goal.max() <= 1.5
    for edge, share in ((0.25, 1 / 16), (0.5, 0.25), (0.75, 0.5), (1.0, 0.75), (1.25, 15 / 16)):
        np.testing.assert_allclose((goal <= edge).mean(axis=0), share, atol=0.045)
    assert abs(np.corrcoef(goal.T)[0, 1]) < 0.08


def test_the_ant_is_rewarded_at_the_goal_and_ends_there() -> None:
    env = made("antmaze-medium-diverse-v2")
    world = env.unwrapped
    for distance, reached in ((0.0, True), (0.4, True), (0.6, False), (5.0, False)):
        start, _ = env.reset(seed=0)
        there = start.copy()
        there[:2] = world.goal - (distance, 0)
        world.place(there[:15], np.zeros(14))
        observation, reward, terminated, truncated, info = env.step(np.zeros(8))
        offset = np.linalg.norm(observation[:2] - world.goal)
        assert (offset <= 0.5) == reached  # one step does not carry it across
        assert (reward, terminated, truncated) == (float(reached), reached, False)
        assert info["success"] == float(reached)


def test_maze2d_starts_in_every_free_cell_alike() -> None:
    env = made("maze2d-umaze-v1").unwrapped
    starts = np.array([env.reset(seed=episode)[0] for episode in range(2100)])
    cells, counts = np.unique(np.round(starts[:, :2]), axis=0, return_counts=True)
    assert {tuple(cell) for cell in cells} == {
        (1, 1), (1, 2), (1, 3), (2, 3), (3, 1), (3, 2), (3, 3)
    }  # fmt: skip
    assert np.abs(counts - 300).max() < 70
    noise = starts[:, :2] - np.round(starts[:, :2])
    assert np.abs(noise).max() <= 0.1
    np.testing.assert_allclose(noise.std(axis=0), 0.1 / 3**0.5, rtol=0.1)
    np.testing.assert_allclose(starts[:, 2:].std(axis=0), 0.1, rtol=0.1)


@pytest.mark.parametrize(
    ("size", "goal", "free"), [("umaze", (1, 1), 7), ("medium", (6, 6), 26), ("large", (7, 9), 46)]
)
def test_maze2d_is_rewarded_at_its_goal_and_goes_on(
    size: str, goal: tuple[int, int], free: int
) -> None:
    env = made(f"maze2d-{size}-v1")
    world = env.unwrapped
    np.testing.assert_array_equal(world.goal, goal)
    assert len(world.free) == free
    env.reset(seed=0)
    seen = []
    inside, outside = np.array([0.49, 0]), np.array([0.51, 0])
    for place in (world.free[-2], world.goal + inside, world.goal + outside, world.free[-2]):
        world.place(place, np.zeros(2))
        _, reward, terminated, truncated, info = env.step(np.zeros(2, np.float32))
        assert not terminated
        assert not truncated
        seen.append((reward, info["success"]))
    assert seen == [(0, 0), (1, 1), (0, 1), (0, 1)]  # success is remembered, the reward is not
    env.reset(seed=1)
    world.place(world.free[-2], np.zeros(2))
    assert env.step(np.zeros(2, np.float32))[-1]["success"] == 0


def test_maze2d_maps_are_the_ant_mazes_and_its_own_u() -> None:
    from deflow.envs.d4rl import antmaze, maze2d

    for size in ("medium", "large"):
        assert tuple(line.replace("G", " ") for line in maze2d.MAPS[size]) == antmaze.MAPS[size]
        row, column = antmaze.GOALS[size]
        assert maze2d.MAPS[size][row][column] == "G"


def test_the_ball_moves_as_gymnasium_robotics_does_in_the_open() -> None:
    point = pytest.importorskip("gymnasium_robotics.envs.maze.point")
    ours = made("maze2d-umaze-v1").unwrapped
    with quiet():
        theirs = point.PointEnv()
    theirs.reset(seed=0)
    start = np.array([1.0, 2.0])
    ours.place(start, np.zeros(2))
    theirs.set_state(np.zeros(2), np.zeros(2))
    for action in np.random.default_rng(0).uniform(-1.2, 1.2, (40, 2)):
        action[0] *= 0.2  # to stay clear of the walls
        mine, yours = ours.step(action)[0], theirs.step(action)[0]
        np.testing.assert_allclose(mine[2:], yours[2:], atol=1e-9)
        np.testing.assert_allclose(mine[:2] - start, yours[:2], atol=1e-9)
        assert (mine[0] - 1) ** 2 < 0.05
        assert 1.5 < mine[1] < 2.5


@pytest.mark.parametrize(
    ("start", "force", "axis", "stop"),
    [
        ((1, 1), (-1, 0), 0, 0.4),
        ((1, 1), (0, -1), 1, 0.4),
        ((3, 3), (1, 0), 0, 3.2),
        ((3, 3), (0, 1), 1, 3.2),
        ((1, 1), (1, 0), 0, 1.2),
    ],
)
def test_the_ball_stands_off_its_cell_as_in_d4rl(
    start: tuple[int, int], force: tuple[int, int], axis: int, stop: float
) -> None:
    # Walls reach half a cell around (i + 1), the ball's body lies at 1.2, and its radius is 0.1.
    world = made("maze2d-umaze-v1").unwrapped
    world.reset(seed=0)
    world.place(np.array(start, float), np.zeros(2))
    for _ in range(300):
        observation, *_ = world.step(np.array(force))
        assert np.abs(observation[2:]).max() < 5.5
    np.testing.assert_allclose(observation[axis], stop, atol=0.03)
