"""Many copies of one environment, without compiling its model again for each."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import gymnasium

from deflow.envs.make import EnvSpec, make_env, quiet
from deflow.envs.seeded import SeededEnv

CHANGED_BY_STEPS = ("dof_damping", "site_pos")
"""What OGBench's manipulation environments write into the compiled model, colours aside: the lock
of the drawer and the window, and the marks of their targets."""


def make_many(env: gymnasium.Env[Any, Any], spec: EnvSpec, count: int) -> list[SeededEnv]:
    """`count` environments, `env` (made from `spec`) being the first.

    OGBench's manipulation models take half a second and 90 MB each, nearly all of it meshes, so
    their copies share the compiled model. Others are simply made again.
    """
    if spec.entry or not _is_manipulation(env):
        return [SeededEnv(e) for e in (env, *(make_env(spec) for _ in range(count - 1)))]
    with quiet():
        env.reset(seed=0)  # compiles the model
        copies = [env, *(_copy(env) for _ in range(count - 1))]
        base: Any = env.unwrapped
        shared = tuple(getattr(base.model, name) for name in CHANGED_BY_STEPS)
        return [SeededEnv(e, shared) for e in copies]


def _is_manipulation(env: gymnasium.Env[Any, Any]) -> bool:
    entry = env.spec.entry_point if env.spec else None
    known = isinstance(entry, str) and entry.startswith("ogbench.manipspace")
    return known and hasattr(env.unwrapped, "_ik")


def _copy(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    import mujoco

    base: Any = env.unwrapped
    solver = base._ik
    memo: dict[int, Any] = {id(part): part for part in _sources(vars(base))}
    for model, data in ((base._model, base._data), (solver._model, solver._data)):
        memo[id(model)] = model
        memo[id(data)] = mujoco.MjData(model)
    return copy.deepcopy(env, memo)


def _sources(value: Any) -> Iterator[Any]:
    """The parts of the uncompiled model: used once, for compiling, and not made to be copied."""
    from dm_control import mjcf

    if isinstance(value, mjcf.Element):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _sources(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _sources(item)
