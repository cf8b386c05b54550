"""Playing many episodes in lockstep: one batched call acts for all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deflow.core.errors import DeFlowError
from deflow.envs.pool import EnvPool

LONGEST = 100_000
"""Steps after which an episode is taken for one that never ends."""

Act = Callable[[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]], NDArray[np.float32]]
"""Maps observations [members, n, obs], episodes [members, n] and steps [members, n] to actions
[members, n, act], n being slots per member. Idle slots pass stale rows; theirs are ignored."""


@dataclass(frozen=True)
class EpisodeResult:
    """How one episode went. `success` is the last step's `info["success"]`, where there is one;
    where other episodes have one, not to have it is a failure."""

    episode: int
    return_: float
    length: int
    success: float | None
    terminated: bool


@dataclass
class RolloutTimes:
    """Where the seconds went. `stepping` is the wall time spent waiting on the pool (resets between
    episodes included, the first ones apart); `workers` sums the workers' own seconds over it."""

    acting: float = 0.0
    stepping: float = 0.0
    resetting: float = 0.0
    workers: float = 0.0
    total: float = 0.0
    steps: int = 0


def rollout(
    pool: EnvPool,
    act: Act,
    episodes: range,
    seed: int,
    *,
    members: int = 1,
    on_tick: Callable[[int, int], None] | None = None,
) -> tuple[list[list[EpisodeResult]], RolloutTimes]:
    """Each member plays every episode; returns their results, by member and episode, and the times.

    The pool's slots are split evenly: slot j of a member plays its j-th episode, then the
    (j + n)-th, and so on, where n is slots per member. What happens in an episode depends on the
    actions and (seed, episode) only, the same for each member. `on_tick(done, total)` counts
    episodes over all members.

    Raises `DeFlowError` where an action is not finite, where an episode does not end, and whatever
    the pool raises.
    """
    if members < 1 or pool.slots % members:
        raise DeFlowError(f"{pool.slots} slots cannot be split evenly over {members} members.")
    started = time.perf_counter()
    board = pool.board
    width = pool.slots // members
    column = np.arange(pool.slots) % width
    turns = np.zeros(pool.slots, np.int64)

    def assigned(turn: NDArray[np.int64]) -> NDArray[np.int64]:
        order = column + turn * width
        numbers = episodes.start + order * episodes.step
        return np.where(order < len(episodes), numbers, -1)

    playing = assigned(turns)
    lengths = np.zeros(pool.slots, np.int64)
    returns = np.zeros(pool.slots)
    results: list[dict[int, EpisodeResult]] = [{} for _ in range(members)]
    done, total = 0, members * len(episodes)
    times = RolloutTimes()
    board.seconds[:] = 0
    pool.reset(seed, playing)
    times.resetting = time.perf_counter() - started
    while done < total:
        begun = time.perf_counter()
        actions = act(
            board.observations.copy().reshape(members, width, *board.observations.shape[1:]),
            np.maximum(playing, 0).astype(np.int32).reshape(members, width),
            lengths.astype(np.int32).reshape(members, width),
        )
        active = board.active.copy()
        flat = _checked(np.asarray(actions), (members, width, pool.act_dim), active, playing)
        acted = time.perf_counter()
        following = assigned(turns + 1)
        pool.step(flat, following)
        times.acting += acted - begun
        times.stepping += time.perf_counter() - acted
        times.steps += int(active.sum())

        returns[active] += board.rewards[active]
        lengths[active] += 1
        ended = active & (board.terminated | board.truncated)
        _check_endless(lengths, playing, pool.spec.name)
        for slot in np.flatnonzero(ended):
            success = float(board.success[slot])
            results[slot // width][int(playing[slot])] = EpisodeResult(
                episode=int(playing[slot]),
                return_=float(returns[slot]),
                length=int(lengths[slot]),
                success=None if math.isnan(success) else success,
                terminated=bool(board.terminated[slot]),
            )
        done += int(ended.sum())
        turns[ended] += 1
        playing[ended] = following[ended]
        returns[ended] = 0
        lengths[ended] = 0
        if on_tick:
            on_tick(done, total)
    times.workers = float(board.seconds.sum())
    times.total = time.perf_counter() - started
    return _settled([[result[episode] for episode in episodes] for result in results]), times


def _settled(played: list[list[EpisodeResult]]) -> list[list[EpisodeResult]]:
    """An environment that tells of success, but only where there is one, tells of failures too."""
    if all(episode.success is None for results in played for episode in results):
        return played
    return [[replace(e, success=e.success or 0.0) for e in results] for results in played]


def _check_endless(lengths: NDArray[np.int64], playing: NDArray[np.int64], name: str) -> None:
    if lengths.max() >= LONGEST:
        raise DeFlowError(
            f"Episode {int(playing[lengths.argmax()])} of '{name}' has not ended after {LONGEST:,} "
            "steps; wrap the environment with gymnasium.wrappers.TimeLimit."
        )


def _checked(
    actions: NDArray[np.float32],
    shape: tuple[int, int, int],
    active: NDArray[np.bool_],
    playing: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Actions [slots, act], or the reason why they cannot be taken."""
    if actions.shape != shape:
        raise DeFlowError(f"The policy gave actions of shape {actions.shape}, not {shape}.")
    flat = actions.reshape(-1, shape[-1])
    bad = active & ~np.isfinite(flat).all(axis=1)
    if bad.any():
        slot = int(np.flatnonzero(bad)[0])
        raise DeFlowError(
            f"The policy of member {slot // shape[1]} gave an action that is not finite "
            f"in episode {int(playing[slot])}; its parameters have diverged."
        )
    return flat
