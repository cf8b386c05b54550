"""Episodes that depend on nothing but (evaluation seed, episode)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import gymnasium
import numpy as np
from numpy.random import mtrand
from numpy.typing import NDArray

from deflow.envs.make import quiet

T = TypeVar("T")


class SeededEnv:
    """An environment whose every random number follows from (seed, episode).

    Three sources are governed: the environment's own generator, its action space (OGBench's resets
    sample from it), and NumPy's global generator (the mazes' resets and teleports draw from it),
    which is put back after each call. Python's `random` is not.

    `swapped` are arrays that several environments share and each wants to itself: they hold this
    environment's values during a call.
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], swapped: tuple[NDArray[Any], ...] = ()
    ) -> None:
        _pin_action_space(env)
        self.env = env
        self._swapped = swapped
        self._values = tuple(array.copy() for array in swapped)
        self._generator = np.random.MT19937(0)

    def reset(self, seed: int, episode: int) -> NDArray[Any]:
        """Begin an episode; returns its first observation."""
        reset, action, other = episode_seeds(seed, episode)
        self._generator = np.random.MT19937(other)
        for layer in _layers(self.env):  # A wrapper may have a space of its own.
            layer.action_space.seed(action)
        observation: NDArray[Any] = self._alone(lambda: self.env.reset(seed=reset))[0]
        return observation

    def step(self, action: NDArray[np.float32]) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Gymnasium's step."""
        return self._alone(lambda: self.env.step(action))

    def close(self) -> None:
        self.env.close()

    def _alone(self, call: Callable[[], T]) -> T:
        outside = mtrand.get_bit_generator()
        mtrand.set_bit_generator(self._generator)
        for array, values in zip(self._swapped, self._values, strict=True):
            np.copyto(array, values)
        try:
            return call()
        finally:
            for array, values in zip(self._swapped, self._values, strict=True):
                np.copyto(values, array)
            mtrand.set_bit_generator(outside)


def episode_seeds(seed: int, episode: int) -> tuple[int, int, int]:
    """Three independent seeds: of the environment, its action space, and the global generator."""
    words = np.random.SeedSequence(seed, spawn_key=(episode,)).generate_state(3)
    return int(words[0]), int(words[1]), int(words[2])


def _layers(env: gymnasium.Env[Any, Any]) -> Iterator[gymnasium.Env[Any, Any]]:
    """The environment and all that it wraps."""
    yield env
    while isinstance(env, gymnasium.Wrapper):
        env = env.env
        yield env


def _pin_action_space(env: gymnasium.Env[Any, Any]) -> None:
    """Give the environment one action space where it makes a new one at every look.

    OGBench's manipulation resets take random steps sampled from it. A space made anew is seeded by
    the operating system, and the constraint solver then starts each episode from another point.
    """
    base = env.unwrapped
    with quiet():
        space = base.action_space
        renewed = space is not base.action_space
    if renewed:
        kind = type(base)
        base.__class__ = type(kind.__name__, (kind,), {"action_space": space})
