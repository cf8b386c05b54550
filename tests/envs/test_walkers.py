"""OGBench's online walkers: found by their names, and what its expert script makes of them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from deflow.core.errors import DeFlowError
from deflow.envs.make import WALKING_ANT, EnvSpec, env_shapes, make_env
from deflow.envs.seeded import SeededEnv


def made(env_id: str) -> gymnasium.Env[Any, Any]:
    return make_env(EnvSpec(env_id=env_id))


@pytest.mark.parametrize(
    ("env_id", "shapes"),
    [
        ("online-ant-v0", ((27,), 8)),
        (WALKING_ANT, ((29,), 8)),
        ("online-humanoid-v0", ((67,), 21)),
        ("online-humanoid-xy-v0", ((69,), 21)),
    ],
)
def test_walkers_are_found_and_accepted(env_id: str, shapes: tuple[tuple[int], int]) -> None:
    env = made(env_id)
    assert env_shapes(env) == shapes
    assert env.spec is not None
    assert env.spec.max_episode_steps == 1000


@pytest.mark.parametrize(("body", "interval"), [("ant", 100), ("humanoid", 200)])
def test_a_walk_is_the_one_of_the_expert_script(body: str, interval: int) -> None:
    """There the wrapper stands outside the time limit; what is seen must be the same."""
    from ogbench.online_locomotion import wrappers

    kind = wrappers.GymXYWrapper if body == "ant" else wrappers.DMCHumanoidXYWrapper
    plain = gymnasium.make(f"online-{body}-v0", disable_env_checker=True)
    ours = SeededEnv(made(f"online-{body}-xy-v0"))
    theirs = SeededEnv(kind(plain, resample_interval=interval))
    seen = [ours.reset(5, 2)]
    np.testing.assert_array_equal(seen[0], theirs.reset(5, 2))
    draw = np.random.default_rng(0)
    for _ in range(2 * interval + 10):
        action = draw.uniform(-0.2, 0.2, ours.env.action_space.shape).astype(np.float32)
        here, there = ours.step(action), theirs.step(action)
        np.testing.assert_array_equal(here[0], there[0])
        assert here[1:4] == there[1:4]
        seen.append(here[0])
        if here[2]:
            break
    directions = np.array(seen)[:, -2:]
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    turns = np.flatnonzero(np.any(np.diff(directions, axis=0) != 0, axis=1)) + 1
    assert list(turns) == [k for k in (interval, 2 * interval) if k < len(seen)]


def test_the_ant_is_paid_for_going_where_it_is_told_and_ends_only_where_it_lies() -> None:
    env = made(WALKING_ANT)
    seeded = SeededEnv(env)
    told = seeded.reset(0, 0)[-2:]
    before = env.unwrapped.data.qpos[:2].copy()  # type: ignore[attr-defined]
    _, reward, *ended, _ = seeded.step(np.ones(8, np.float32))
    after = env.unwrapped.data.qpos[:2]  # type: ignore[attr-defined]
    assert reward == pytest.approx((after - before) @ told)
    assert ended == [False, False]
    state = env.unwrapped.data.qpos.copy()  # type: ignore[attr-defined]
    state[2] = 3.0  # Higher than an ant can stand.
    env.unwrapped.set_state(state, env.unwrapped.data.qvel)  # type: ignore[attr-defined]
    assert seeded.step(np.zeros(8, np.float32))[2:4] == (True, False)


def test_what_cannot_be_made_is_said() -> None:
    with pytest.raises(DeFlowError, match="did you mean online-ant-xy-v0"):
        made("online-ant-yx-v0")
    with pytest.raises(DeFlowError, match="'online-antball-v0' could not be made"):
        made("online-antball-v0")  # Its maker draws, and was given no way to.
