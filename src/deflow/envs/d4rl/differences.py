"""Every known difference between the environments here and D4RL's own, with its source."""

from __future__ import annotations

from typing import NamedTuple


class Difference(NamedTuple):
    """One difference from D4RL.

    Attributes:
        environments: which of them, in words.
        what: what differs, and what it means for a score.
        source: where D4RL's side, or the measurement, can be looked up.
    """

    environments: str
    what: str
    source: str


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "all",
        "MuJoCo 3 or later instead of MuJoCo 2.0 through mujoco-py: contacts are solved a little "
        "differently, so trajectories part after some steps although the models agree.",
        "MuJoCo's changelog; D4RL's setup.py asks for mujoco_py",
    ),
    Difference(
        "all",
        "Every random number comes from the environment's own seeded generator; D4RL draws the ant "
        "mazes' goals from NumPy's global state, which its seed does not govern. The distributions "
        "are the same.",
        "D4RL locomotion/maze_env.py, goal_sampler",
    ),
    Difference(
        "antmaze",
        "The ant is OGBench's: gear 30 and controls in [-1, 1] where D4RL has gear 1 and controls "
        "in [-30, 30] behind a rescaling wrapper; masses, joints, damping, contacts, time step and "
        "frame skip are equal.",
        "OGBench locomaze/assets/ant.xml; D4RL locomotion/assets/ant.xml, wrappers.py",
    ),
    Difference(
        "maze2d",
        "Built from the facts of D4RL's model rather than taken from gymnasium-robotics. The ball "
        "and its actuators agree in both, but gymnasium-robotics puts the origin in the maze's "
        "middle, swaps and mirrors the axes, and centres the ball in its cell, where D4RL's ball "
        "stands 0.2 off the walls' grid. info['success'] is ours: D4RL's step tells nothing.",
        "D4RL pointmaze/maze_model.py; gymnasium-robotics envs/assets/point/point.xml, envs/maze/",
    ),
    Difference(
        "door, hammer, relocate",
        "gymnasium-robotics up to 1.4.2 adds 0.1 times the distance between palm and object to the "
        "reward where D4RL subtracts it. It is mended here, and only where the installed release, "
        "asked for a reward, has the fault.",
        "gymnasium-robotics envs/adroit_hand/ and pull request 220; D4RL hand_manipulation_suite/",
    ),
    Difference(
        "pen",
        "gymnasium-robotics goes on for 200 steps after the pen was dropped; D4RL ends there and "
        "after 100 steps. Both are mended here.",
        "D4RL hand_manipulation_suite/pen_v0.py, __init__.py",
    ),
    Difference(
        "pen, door, hammer, relocate",
        "info['success'] is DAPG's: the goal held for more than 25 steps of the episode (pen: 20). "
        "D4RL reports the returns alone.",
        "D4RL hand_manipulation_suite/, evaluate_success",
    ),
    Difference(
        "halfcheetah, hopper, walker2d",
        "Gymnasium's version 4 instead of gym's version 2: the same models, rewards, observations "
        "and endings on the new bindings. Version 5 changes models and rewards and is not used.",
        "Gymnasium's MuJoCo page, version history",
    ),
)
