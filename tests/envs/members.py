"""What a member of `Lockstep` should see, and how to compare."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from deflow.envs.lockstep import APART, Steps
from deflow.envs.make import EnvSpec, make_env
from deflow.envs.seeded import SeededEnv, episode_seeds

WALK = EnvSpec(entry="tests.envs.toys:Walk")


def short(env_id: str, steps: int) -> EnvSpec:
    """A task whose episodes are cut after so many steps."""
    return EnvSpec(env_id=env_id, kwargs=(("max_episode_steps", steps),))


def still(observations: Any, episodes: Any, steps: Any) -> Any:
    """A policy that does nothing, of two actions."""
    del episodes, steps
    return np.zeros((*observations.shape[:2], 2), np.float32)


def faulty(*faults: tuple[int, int, str, int]) -> EnvSpec:
    """Faults as (seed of a run, episode, kind, step)."""
    known = tuple(
        (episode_seeds(seed + APART, episode)[0], kind, step)
        for seed, episode, kind, step in faults
    )
    return EnvSpec(entry="tests.envs.faults:Faulty", kwargs=(("faults", known),))


def drawn(steps: int, members: int, width: int) -> Any:
    """Actions [steps, members, width], some beyond the bounds."""
    return np.random.default_rng(1).uniform(-1.2, 1.2, (steps, members, width)).astype(np.float32)


def rows(steps: Steps, member: int) -> dict[str, Any]:
    return {name: values[member] for name, values in vars(steps).items()}


@functools.cache
def here(spec: EnvSpec) -> SeededEnv:
    """An environment in this process."""
    return SeededEnv(make_env(spec))


def alone(spec: EnvSpec, seed: int, actions: Any, skipped: tuple[int, ...] = ()) -> Iterator[Any]:
    """What one member should see, stepped here as a plain loop; some episodes are never played."""
    env, episode = here(spec), 0
    observation, total, length = env.reset(seed + 2**32, 0), 0.0, 0
    for action in np.clip(actions, -1, 1):
        after, reward, terminated, truncated, info = env.step(action.copy())
        total, length, ended = total + reward, length + 1, terminated or truncated
        yield {
            "observations": observation.astype(np.float32),
            "actions": action,
            "rewards": np.float32(reward),
            "masks": np.float32(0 if terminated else 1),
            "next_observations": after.astype(np.float32),
            "ended": ended,
            "lost": False,
            "success": info.get("success", math.nan),
            "episodes": episode,
            "returns": total if ended else math.nan,
            "lengths": length if ended else 0,
        }
        observation = after
        if ended:
            episode += 1
            while episode in skipped:
                episode += 1
            observation, total, length = env.reset(seed + 2**32, episode), 0.0, 0


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
