"""Evaluation depends on the policy and the evaluation's seed, and on nothing else."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests import toy
from tests.training.runs import Training

import deflow
from deflow import DeFlowError
from deflow.core.agent import Agent, Phase
from deflow.core.types import Spec
from deflow.training.evaluate import batched_act
from deflow.training.family import PURPOSES, Member
from deflow.training.judge import Judgement, judge
from deflow.training.run_folder import RunFolder


class Told(Agent):
    """Does what its noise says."""

    name: ClassVar[str] = "told"

    def init(self, key: Any, spec: Any) -> Any:
        return {"nothing": jnp.zeros(1)}

    def phases(self, spec: Any, schedule: str) -> tuple[Phase, ...]:
        return ()

    def draw_act(self, key: Any, spec: Any) -> Any:
        return jax.random.uniform(key, (spec.action_dim,))

    def act(self, state: Any, observations: Any, noise: Any, mode: Any) -> Any:
        return noise


def test_an_evaluation_draws_other_numbers_than_a_run_with_its_seed():
    """Keys that are split and keys that are folded coincide: episode i begins as purpose i."""
    state, spec = {"nothing": jnp.zeros((1, 1))}, Spec(3, 2, (0.0, 1.0), 1)
    where = np.zeros((1, 4, 3)), np.uint32(5), np.arange(4)[None], np.full((1, 4), 7)
    drawn = np.asarray(batched_act(Told(), state, *where, spec, "policy"))[0]
    keys = [jax.random.fold_in(Member(5).key(purpose), 7) for purpose in PURPOSES]
    own = np.stack([jax.random.uniform(key, (2,)) for key in keys])
    assert not np.isclose(drawn, own).any()


def played(found: Judgement) -> list[Any]:
    return [result.episodes for result in found.results]


@pytest.fixture(scope="module")
def once(learnt: RunFolder) -> Judgement:
    return judge(learnt, episodes=9, workers=2)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_number_of_workers_changes_nothing(learnt: RunFolder, once: Judgement, workers: int):
    assert played(judge(learnt, episodes=9, workers=workers)) == played(once)


def test_fewer_episodes_are_the_first_of_more(learnt: RunFolder, once: Judgement):
    few = played(judge(learnt, episodes=4, workers=2))
    assert few == [episodes[:4] for episodes in played(once)]


def test_more_episodes_than_slots_are_played_in_turns(
    learnt: RunFolder, once: Judgement, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("deflow.training.evaluate.MAX_SLOTS", 4)
    assert played(judge(learnt, episodes=9, workers=2)) == played(once)


def test_the_seed_chooses_the_episodes(learnt: RunFolder, once: Judgement):
    assert played(judge(learnt, episodes=9, seed=1, workers=2)) != played(once)


def test_each_episode_and_each_step_has_noise_of_its_own(learnt: RunFolder, once: Judgement):
    lengths = {(e.length, round(e.return_, 3)) for e in once.results[0].episodes}
    assert len(lengths) > 2


def test_what_training_logged_is_what_an_evaluation_finds(learnt: RunFolder):
    logged = [line for line in learnt.read_lines(learnt.evaluations) if line["step"] == 3000]
    found = judge(learnt, episodes=30, seed=0, workers=2).to_json()
    for line, member in zip(logged, found["members"], strict=True):
        assert {**member, "episodes": None} == {
            **{name: line[name] for name in member},
            "episodes": None,
        }
        assert member["episodes"] == line["episodes"]


def test_the_base_flow_may_be_judged_alone(learnt: RunFolder, once: Judgement):
    prior = judge(learnt, episodes=9, policy="prior", workers=2)
    assert played(prior) != played(once)
    assert prior.to_json()["policy"] == "prior"


def test_judging_leaves_the_folder_alone(learnt: RunFolder):
    before = {path: path.stat().st_mtime_ns for path in learnt.path.rglob("*")}
    judge(learnt, episodes=2, workers=1)
    assert {path: path.stat().st_mtime_ns for path in learnt.path.rglob("*")} == before


def test_a_run_without_an_environment_says_how_to_name_one(training: Training):
    folder = training(schedule="joint")
    with pytest.raises(DeFlowError, match=r"names no environment .* --env module:make"):
        judge(folder, episodes=2)
    found = deflow.evaluate(folder.path, 2, env=toy.ENV, workers=1)
    assert [len(result.episodes) for result in found.results] == [2, 2]
    for env, said in (("tests.toy:make_blind", "belongs to the data"), (toy.make, "is named")):
        with pytest.raises(DeFlowError, match=said):
            judge(folder, episodes=2, env=env)


def test_a_run_is_judged_in_its_own_environment(learnt: RunFolder):
    with pytest.raises(DeFlowError, match=r"is judged in tests\.toy:make: leave --env"):
        judge(learnt, episodes=2, env="tests.toy:make_blind")


def test_success_is_the_share_of_episodes_that_reached_the_goal(once: Judgement):
    for result in once.results:
        assert result.success == np.mean([e.success for e in result.episodes])
        # The toy ends an episode where the goal is reached, so a shorter one has succeeded.
        assert all(e.success == 1 for e in result.episodes if e.length < 20)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seed": 2**32}, "seed must be at least 0 and below"),
        ({"seed": -1}, "seed must be"),
        ({"episodes": 0}, "episodes must be"),
        ({"workers": -1}, "workers must be"),
        ({"policy": "flow"}, "'policy' or 'prior', not 'flow'"),
    ],
)
def test_what_is_out_of_range_is_refused(learnt: RunFolder, options: dict[str, Any], said: str):
    with pytest.raises(DeFlowError, match=said):
        judge(learnt, **{"episodes": 1, **options})
