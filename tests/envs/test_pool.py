from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.envs.members import still

from deflow.core.errors import DeFlowError
from deflow.envs.make import EnvSpec
from deflow.envs.pool import EnvPool
from deflow.envs.rollout import rollout

ROOT = Path(__file__).resolve().parents[2]


def toy(name: str, **kwargs: Any) -> EnvSpec:
    return EnvSpec(entry=f"tests.envs.toys:{name}", kwargs=tuple(kwargs.items()))


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(processes: list[int], within: float = 5) -> bool:
    until = time.monotonic() + within
    while any(map(alive, processes)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(alive, processes))


def test_workers_import_no_jax() -> None:
    with EnvPool(toy("Light"), 2, 1) as pool:
        rollout(pool, still, range(2), 0)


def test_workers_know_every_package_that_the_main_process_knows() -> None:
    pytest.importorskip("gymnasium_robotics")
    with EnvPool(EnvSpec(env_id="PointMaze_UMaze-v3", flatten=True), 1, 1) as pool:
        assert pool.act_dim == 2


def test_an_environment_that_raises_is_named_with_its_episode() -> None:
    with (
        EnvPool(toy("Fails"), 4, 2) as pool,
        pytest.raises(DeFlowError, match=r"Fails.*episode 1\d, step 3.*the wheel came off"),
    ):
        rollout(pool, still, range(10, 14), 0)


def test_a_pool_that_failed_is_closed() -> None:
    pool = EnvPool(toy("Fails"), 2, 1)
    with pytest.raises(DeFlowError):
        rollout(pool, still, range(2), 0)
    with pytest.raises(DeFlowError, match="closed"):
        pool.reset(0, np.arange(2))
    pool.close()


def test_a_worker_that_dies_is_noticed_with_its_episodes() -> None:
    with (
        EnvPool(toy("Dies"), 2, 1) as pool,
        pytest.raises(DeFlowError, match=r"killed by signal 9.*episodes 4, 5"),
    ):
        rollout(pool, still, range(4, 6), 0)


def test_a_worker_killed_from_outside_is_noticed_at_once(tmp_path: Path) -> None:
    notes = tmp_path / "processes"
    with EnvPool(toy("Sleepy", notes=str(notes)), 4, 2) as pool:
        pool.reset(0, np.arange(4))
        victim, other = sorted(set(map(int, notes.read_text().split())))
        os.kill(victim, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(DeFlowError, match="killed by signal 9"):
            pool.step(np.zeros((4, 2)), np.full(4, -1))
        assert time.monotonic() - started < 5
        assert gone([victim, other])


def test_closing_ends_the_workers(tmp_path: Path) -> None:
    notes = tmp_path / "processes"
    with EnvPool(toy("Sleepy", notes=str(notes)), 3, 3) as pool:
        assert (pool.board.observations.shape[1], pool.act_dim) == (3, 2)
    assert gone(list(map(int, notes.read_text().split())))


def test_workers_do_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    notes = tmp_path / "processes"
    script = f"""
import numpy as np
from deflow.envs.make import EnvSpec
from deflow.envs.pool import EnvPool
pool = EnvPool(EnvSpec(entry="tests.envs.toys:Sleepy", kwargs=(("notes", {str(notes)!r}),)), 2, 2)
pool.reset(0, np.arange(2))
print("stepping", flush=True)
while True:
    pool.step(np.zeros((2, 2)), np.full(2, -1))
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"stepping\n"
    workers = list(map(int, notes.read_text().split()))
    assert len(workers) == 2
    assert all(map(alive, workers))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(workers)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (EnvSpec(env_id="pointmaze-medium-v0"), "goal-conditioned"),
        (EnvSpec(entry="tests.envs.toys:Absent"), "not found"),
        (toy("Sleepy", nonsense=1), r"could not be made.*nonsense"),
    ],
)
def test_an_unfit_environment_is_refused_before_any_step(spec: EnvSpec, reason: str) -> None:
    with EnvPool(spec, 2, 2) as pool, pytest.raises(DeFlowError, match=reason):
        _ = pool.board


def test_slots_and_workers_are_positive() -> None:
    for slots, workers in ((0, 1), (1, 0)):
        with pytest.raises(DeFlowError):
            EnvPool(toy("Walk"), slots, workers)
