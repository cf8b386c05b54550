"""One's own data: learned in the agent's units, acted and judged in the user's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from tests import toy
from tests.training.runs import assert_same

import deflow
from deflow.agents.bc import BC
from deflow.cli import main
from deflow.core.errors import DeFlowError
from deflow.data.dataset import Dataset
from deflow.data.own import Own, load_again, load_own
from deflow.data.transforms import Box
from deflow.envs.make import EnvSpec, make_env
from deflow.envs.seeded import SeededEnv
from deflow.training.config import TrainConfig
from deflow.training.judge import env_of, judge
from deflow.training.run_folder import RunFolder
from deflow.training.source import normalizer, own_env, source
from deflow.training.task import prepare

pq = pytest.importorskip("pyarrow.parquet")

ENV = "strong_point:make"
STRONG_POINT = """
import gymnasium, numpy as np
from tests import toy

def make():
    space = gymnasium.spaces.Box(-4, 4, (2,), np.float32)
    return gymnasium.wrappers.TransformAction(toy.make(), lambda a: np.asarray(a) / 4, space)
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy in other units: actions within 4, observations far from 0, runs named by text."""
    import pyarrow as pa

    (tmp_path / "strong_point.py").write_text(STRONG_POINT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "strong_point", raising=False)
    data = toy.dataset()
    rows = data.rows
    runs = np.searchsorted(data.episode_ends, rows)
    table = {
        "state": list(data.observations[rows]),
        "force": list(4 * data.actions[rows]),
        "cost": data.rewards[rows],
        "done": data.masks[rows] == 0,
        "run": [f"run {number}" for number in runs],
    }
    pq.write_table(pa.table(table), tmp_path / "log.parquet")
    return tmp_path / "log.parquet"


COLUMNS = ("observations=state", "actions=force", "rewards=cost", "terminals=done", "episode=run")
TINY = (
    f"--env {ENV} --steps 20 --chunk 10 --log-every 10 --checkpoint-every 10 --eval-every 20 "
    "--eval-episodes 2 --workers 1 --agent.hidden 16 16 --agent.batch_size 16"
).split()


@pytest.fixture
def trained(log: Path, tmp_path: Path) -> Callable[..., RunFolder]:
    def run(*words: object) -> RunFolder:
        line = ["train", "mine", "--data", log, "--columns", *COLUMNS, *TINY]
        line += ["--run-dir", tmp_path / "run", *words]
        assert main.run([str(word) for word in line]) == 0
        return RunFolder(tmp_path / "run")

    return run


def test_the_range_of_rewards_is_that_of_the_transitions():
    seen, acted = np.eye(3), np.zeros((3, 2))
    data = Dataset.from_arrays(
        seen, acted, [1.0, 3.0, 2.0], [False] * 3, next_observations=seen + 1
    )
    assert (data.rewards == 0).any()  # Rows that only end a step.
    job = prepare(TrainConfig("mine", BC()), data)
    assert job.spec.reward_range == (1.0, 3.0)


def test_a_policy_takes_and_gives_the_units_of_the_file(
    trained: Callable[..., RunFolder], log: Path
):
    folder = trained("--action-bounds", -4, 4, "--normalize-observations", "--agent", "bc")
    own = load_again(log, folder.read_json("conversion.json"))
    assert own.transforms.box == Box((-4.0,), (4.0,))
    assert np.abs(own.dataset.observations.mean(0)).max() < 1e-3
    raw = toy.dataset().observations[:50]
    policy = deflow.load_policy(folder.path)
    inner = deflow.load_policy(folder.path)
    inner.transforms = type(own.transforms)()
    normal = own.transforms.normal
    assert normal is not None
    np.testing.assert_allclose(policy(raw), 4 * inner(normal(raw)), rtol=1e-5, atol=1e-6)
    assert np.abs(policy(raw)).max() <= 4


def test_an_evaluation_steps_the_environment_in_its_own_units(trained: Callable[..., RunFolder]):
    """The same policy, judged in the box of the data and, by hand, in the environment itself."""
    folder = trained("--action-bounds", -4, 4, "--agent", "bc")
    assert env_of(folder).box == ((-4.0,), (4.0,))
    found = judge(folder, episodes=1, workers=1).results[0].episodes[0]
    policy, env = deflow.load_policy(folder.path), SeededEnv(make_env(EnvSpec(entry=ENV)))
    seen, rewards, over = env.reset(0, 0), [], False
    while not over:
        seen, reward, terminated, cut, _ = env.step(policy(seen))
        rewards.append(reward)
        over = terminated or cut
    assert (len(rewards), terminated) == (found.length, found.terminated)
    assert sum(rewards) == pytest.approx(found.return_)


@pytest.mark.slow
def test_a_run_on_a_file_goes_on_as_it_was_read(
    trained: Callable[..., RunFolder], log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ("--action-bounds", -4, 4, "--normalize-observations", "--scale-rewards", "std")
    whole = trained(*words)
    whole.path.rename(tmp_path / "whole")
    with monkeypatch.context() as patch:
        from deflow.training.recorder import Recorder

        patch.setattr(Recorder, "evaluate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            trained(*words)
    assert main.run(["resume", str(tmp_path / "run"), "--data", str(log)]) == 0
    assert_same(RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run"))


@pytest.mark.slow
def test_delta_comes_from_the_data_where_it_is_asked_for(
    trained: Callable[..., RunFolder], capsys: pytest.CaptureFixture[str]
):
    folder = trained("--action-bounds", -4, 4, "--agent.delta", "auto:0.5")
    agent = folder.config().agent
    assert "0.5 times" in capsys.readouterr().err
    assert 0 < agent.delta < 0.5
    for wrong, said in (("auto:x", "auto:FACTOR"), ("auto:-1", "auto:FACTOR")):
        with pytest.raises(DeFlowError, match=said):
            trained("--agent.delta", wrong)


def test_a_set_that_names_its_environment_is_judged_there(log: Path, tmp_path: Path):
    own = load_own(log, COLUMNS, bounds=Box((-4.0,), (4.0,)))
    assert own.environment is None
    from deflow.data.readers.raw import Environment

    named = Own(own.dataset, own.transforms, Environment("MountainCarContinuous-v0"))
    with pytest.raises(DeFlowError, match="MountainCarContinuous-v0 has 2 and 1"):
        deflow.train("mine", "bc", dataset=named, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_of_ones_own_under_a_benchmarks_name_are_judged_in_its_task(log: Path):
    own = load_own(log, COLUMNS, bounds=Box((-4.0,), (4.0,)))
    found = own_env(own, None, "hopper-medium-v2")
    assert found == replace(source("hopper-medium-v2").env, box=((-4.0,), (4.0,)))
    assert normalizer(found) is not None
    assert own_env(own, None, "mine") is None


def test_observations_that_are_dictionaries_become_vectors():
    spec = EnvSpec(entry="tests.training.test_own_data:make_dict", flatten=True)
    assert make_env(spec).observation_space.shape == (4,)


def make_dict() -> gymnasium.Env:
    space = gymnasium.spaces.Dict(
        {name: gymnasium.spaces.Box(-2, 2, (2,), np.float32) for name in ("goal", "point")}
    )
    split = lambda seen: {"point": seen[:2], "goal": seen[2:]}  # noqa: E731
    return gymnasium.wrappers.TransformObservation(toy.make(), split, space)
