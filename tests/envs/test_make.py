from __future__ import annotations

from multiprocessing import Pipe
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from tests.envs.toys import LINE, UNIT, Walk

from deflow.core.errors import DeFlowError
from deflow.envs.make import EnvSpec, env_shapes, make_env


def test_a_spec_travels() -> None:
    spec = EnvSpec(entry="tests.envs.toys:Walk", kwargs=(("tells_success", False),))
    ours, theirs = Pipe()  # as the pool sends it to its workers
    with ours, theirs:
        ours.send(spec)
        assert theirs.recv() == spec
    assert env_shapes(make_env(spec)) == ((3,), 2)


def test_a_spec_is_an_id_or_an_entry() -> None:
    assert EnvSpec.parse("pkg.module:make") == EnvSpec(entry="pkg.module:make")
    assert EnvSpec.parse("cube-single-singletask-task1-v0").env_id
    for both_or_none in ({}, {"env_id": "a", "entry": "b:c"}):
        with pytest.raises(DeFlowError):
            EnvSpec(**both_or_none)


def test_an_ogbench_task_is_accepted() -> None:
    env = make_env(EnvSpec(env_id="pointmaze-medium-singletask-task1-v0"))
    assert env_shapes(env) == ((2,), 2)


@pytest.mark.parametrize(
    ("peculiar", "reason"),
    [
        ({"action_space": spaces.Discrete(3)}, "discrete"),
        ({"action_space": spaces.MultiDiscrete([2, 3])}, "discrete"),
        ({"action_space": spaces.Box(-np.inf, np.inf, (2,))}, "no bounds"),
        ({"action_space": spaces.Box(-2, 2, (2,))}, r"RescaleAction\(env, -1, 1\)"),
        ({"action_space": spaces.Box(-1, 1, (2, 2))}, "one vector"),
        ({"observation_space": spaces.Dict(a=LINE)}, "dictionary"),
        ({"observation_space": spaces.Dict(desired_goal=LINE)}, "goal-conditioned"),
        ({"observation_space": spaces.Tuple([LINE, UNIT])}, "dictionary or tuple"),
        ({"observation_space": spaces.Box(0, 1, (8, 8, 3), np.float32)}, "frames must be bytes"),
        ({"observation_space": spaces.Box(0, 255, (8,), np.uint8)}, "frames must be bytes"),
        ({"observation_space": spaces.Box(-1, 1, (2, 2))}, "FlattenObservation"),
        ({"observation_space": spaces.Discrete(3)}, "not a vector"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(
    peculiar: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DeFlowError, match=reason):
        env_shapes(Walk(**peculiar))


@pytest.mark.parametrize(
    ("space", "bounds"),
    [
        (spaces.Box(-2, 2, (3,)), "-2 2"),
        (spaces.Box(np.float32([-0.4, -1]), np.float32([0.4, 2.5])), "-0.4 -1 0.4 2.5"),
    ],
)
def test_the_bounds_that_own_data_need_are_told(space: spaces.Box, bounds: str) -> None:
    with pytest.raises(DeFlowError, match=f"give --action-bounds {bounds};"):
        env_shapes(Walk(action_space=space))


@pytest.mark.parametrize(
    ("env_id", "reason"),
    [
        ("pointmaze-medium-v0", "goal-conditioned"),
        ("pointmaze-medum-singletask-task1-v0", "pointmaze-medium-singletask-task1-v0"),
        ("no-such-thing", "no environment called"),
        ("CartPole-v1", "discrete"),
        ("Pendulum-v1", "RescaleAction"),
    ],
)
def test_an_id_that_does_not_do_is_refused(env_id: str, reason: str) -> None:
    with pytest.raises(DeFlowError, match=reason):
        env_shapes(make_env(EnvSpec(env_id=env_id)))


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("tests.envs.toys:Absent", "not found"),
        ("no_such_module:make", "not found"),
        ("tests.envs.toys:", "module:make"),
        ("tests.envs.toys:NOT_CALLABLE", "not a callable"),
        ("tests.envs.toys:not_an_env", "returned a str"),
        ("./tests/envs/toys.py:Walk", "not found"),
        ("tests.envs.toys:out_of_order", "could not be made.*ArithmeticError: no wheels"),
    ],
)
def test_an_entry_that_does_not_do_is_refused(entry: str, reason: str) -> None:
    with pytest.raises(DeFlowError, match=reason):
        make_env(EnvSpec(entry=entry))


def test_an_entry_is_looked_for_in_the_current_folder(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_own_envs.py").write_text("from tests.envs.toys import Walk as make\n")
    (tmp_path / "my_broken_envs.py").write_text("def make(:\n")
    monkeypatch.chdir(tmp_path)
    assert isinstance(make_env(EnvSpec(entry="my_own_envs:make")), gymnasium.Env)
    with pytest.raises(DeFlowError, match="cannot be imported: SyntaxError"):
        make_env(EnvSpec(entry="my_broken_envs:make"))
