"""A trained policy as a function, numpy in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from tests import toy
from tests.training.runs import Training

from deflow import DeFlowError, load_policy, train
from deflow.agents.iql import IQL
from deflow.training.evaluate import PolicyKind
from deflow.training.judge import judge
from deflow.training.run_folder import RunFolder

OBSERVATIONS = np.random.default_rng(0).uniform(-1, 1, (7, toy.OBS))


def test_one_observation_gives_one_action_and_a_batch_a_batch(learnt: RunFolder):
    policy = load_policy(learnt.path, seed=0)
    one, batch = policy(OBSERVATIONS[0]), policy(OBSERVATIONS)
    assert one.shape == (toy.ACT,)
    assert batch.shape == (7, toy.ACT)
    for actions in (one, batch):
        assert isinstance(actions, np.ndarray)
        assert actions.dtype == np.float32
        assert np.abs(actions).max() <= 1
    assert policy(OBSERVATIONS[0].tolist()).shape == (toy.ACT,)


def test_the_noise_seed_fixes_every_call(learnt: RunFolder):
    one, same = (load_policy(str(learnt.path), 0, noise_seed=5) for _ in range(2))
    first = [one(OBSERVATIONS) for _ in range(3)]
    np.testing.assert_array_equal(first, [same(OBSERVATIONS) for _ in range(3)])
    assert not np.array_equal(first[0], first[1])
    other = load_policy(learnt.path, 0, noise_seed=6)
    assert not np.array_equal(other(OBSERVATIONS), first[0])


def test_rows_of_a_batch_have_noise_of_their_own(learnt: RunFolder):
    same = np.tile(OBSERVATIONS[0], (16, 1))
    actions = load_policy(learnt.path, 0, kind="prior")(same)
    assert len(np.unique(actions, axis=0)) == 16


def test_the_base_flow_alone_makes_no_choice(learnt: RunFolder, copied: Any):
    folder = copied(learnt)
    document = json.loads((folder.path / "config.json").read_text())
    document["agent"]["best_of"] = 4
    (folder.path / "config.json").write_text(json.dumps(document))
    policy, prior = (load_policy(folder.path, 0, kind=kind) for kind in get_args(PolicyKind))
    assert (policy.agents.best_of, prior.agents.best_of) == (4, 1)
    np.testing.assert_array_equal(
        prior(OBSERVATIONS), load_policy(learnt.path, 0, kind="prior")(OBSERVATIONS)
    )


def test_members_are_told_apart_by_seed(learnt: RunFolder):
    actions = [load_policy(learnt.path, seed=seed)(OBSERVATIONS) for seed in (0, 1)]
    assert not np.array_equal(*actions)
    with pytest.raises(DeFlowError, match="seed0, seed1"):
        load_policy(learnt.path)
    with pytest.raises(DeFlowError, match="no members that fit"):
        load_policy(learnt.path, seed=9)


def test_swept_members_are_told_apart_by_label(training: Training):
    folder = training(schedule="joint", seeds=(0,), over={"delta": (0.001, 0.5)})
    with pytest.raises(DeFlowError, match=r"2 members .*seed0-delta0\.001, seed0-delta0\.5"):
        load_policy(folder.path, seed=0)
    for label in ("seed0-delta0.001", "seed0-delta0.5"):
        assert load_policy(folder.path, member=label)(OBSERVATIONS).shape == (7, toy.ACT)


@pytest.mark.parametrize("shape", [(3,), (7, 5), (2, 7, 4), ()])
def test_another_width_is_refused(learnt: RunFolder, shape: tuple[int, ...]):
    with pytest.raises(DeFlowError, match="takes observations of 4 numbers"):
        load_policy(learnt.path, seed=0)(np.zeros(shape))


def test_the_policy_plays_the_toy(learnt: RunFolder):
    """As a user would: no pool, no workers, one observation at a time."""
    env, policy = toy.make(), load_policy(learnt.path, seed=0)
    successes = []
    for episode in range(10):
        observation, _ = env.reset(seed=1000 + episode)
        ended, info = False, {}
        while not ended:
            observation, _, terminated, truncated, info = env.step(policy(observation))
            ended = terminated or truncated
        successes.append(info["success"])
    assert np.mean(successes) >= 0.5


def test_a_kind_that_there_is_not_is_refused(learnt: RunFolder, tmp_path: Path):
    unknown: Any = "flow"
    with pytest.raises(DeFlowError, match="'policy' or 'prior', not 'flow'"):
        load_policy(learnt.path, 0, kind=unknown)
    options: dict[str, Any] = {"steps": 1, "chunk": 1, "run_dir": tmp_path / "iql"}
    folder = train("toy", IQL(hidden=(8,), batch_size=8), dataset=toy.dataset(), **options)
    assert load_policy(folder.path)(OBSERVATIONS).shape == (7, toy.ACT)
    played = lambda path, kind: judge(folder, episodes=1, policy=kind, env=toy.ENV)  # noqa: E731
    for ask in (load_policy, played):
        with pytest.raises(DeFlowError, match=r"iql of .* has no base flow"):
            ask(folder.path, kind="prior")


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_noise_seed_out_of_range_is_refused(learnt: RunFolder, seed: int):
    with pytest.raises(DeFlowError, match="noise_seed must be at least 0 and below"):
        load_policy(learnt.path, 0, noise_seed=seed)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(DeFlowError, match="not a run folder"):
        load_policy(tmp_path)
