"""What a run leaves in its folder."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from typing import Any

import equinox as eqx
import numpy as np
import pytest
from tests import toy
from tests.training.runs import Training, arrays, member

from deflow import DeFlow
from deflow.core.types import Spec
from deflow.data.dataset import Dataset
from deflow.training import checkpoint
from deflow.training.config import TrainConfig
from deflow.training.judge import judge
from deflow.training.recorder import Recorder
from deflow.training.run_folder import RunFolder, provenance
from deflow.training.train import default_run_dir

POLICY = {
    "critic/loss",
    "critic/q_mean",
    "critic/q_min",
    "critic/q_max",
    "critic/target_mean",
    "critic/target_min",
    "critic/target_max",
    "critic/grad_norm",
    "actor/loss",
    "actor/q_loss",
    "actor/q",
    "actor/squared_residual",
    "actor/delta",
    "actor/alpha",
    "actor/alpha_loss",
    "refinement/grad_norm",
    "log_alpha/grad_norm",
}
FLOW = {"flow/loss", "flow/grad_norm"}
ALWAYS = {"steps_per_second", "phase", "step", "total_step", "train_seconds", "member"}


def flow_of(folder: RunFolder, index: int) -> dict[str, np.ndarray]:
    return {k: v for k, v in member(folder, index).items() if k.startswith("flow")}


def lines(folder: RunFolder, phase: str) -> list[dict]:
    return [line for line in folder.read_lines(folder.metrics) if line["phase"] == phase]


def test_a_joint_run_measures_all_that_is_promised(joint: RunFolder):
    found = lines(joint, "joint")
    assert {line["member"] for line in found} == {"seed0", "seed1"}
    for line in found:
        assert set(line) >= POLICY | FLOW | ALWAYS
        assert all(math.isfinite(line[name]) for name in POLICY | FLOW)
        assert line["critic/q_min"] <= line["critic/q_mean"] <= line["critic/q_max"]
        assert line["actor/squared_residual"] >= 0
        assert line["actor/delta"] == pytest.approx(0.001)
        assert line["steps_per_second"] > 0
        assert line["step"] == line["total_step"]
    steps = [line["step"] for line in found if line["member"] == "seed0"]
    assert steps == sorted(set(steps))
    assert {20, 40} <= set(steps)


def test_a_flow_first_run_measures_each_phase(flow_first: RunFolder):
    for line in lines(flow_first, "flow"):
        assert set(line) >= FLOW | ALWAYS
        assert not POLICY & set(line)
        assert line["total_step"] == line["step"] <= 40
    for line in lines(flow_first, "policy"):
        assert set(line) >= POLICY | ALWAYS
        assert not FLOW & set(line)
        assert line["total_step"] == line["step"] + 40


@pytest.mark.parametrize("name", ["joint", "flow_first"])
def test_evaluations_name_every_episode(name: str, request: pytest.FixtureRequest):
    folder: RunFolder = request.getfixturevalue(name)
    found = folder.read_lines(folder.evaluations)
    assert [(line["step"], line["member"]) for line in found] == [
        (20, "seed0"),
        (20, "seed1"),
        (40, "seed0"),
        (40, "seed1"),
    ]
    for line in found:
        assert [episode["episode"] for episode in line["episodes"]] == [0, 1, 2, 3]
        assert all(1 <= episode["length"] <= toy.LIMIT for episode in line["episodes"])
        mean = np.mean([episode["success"] for episode in line["episodes"]])
        assert line["success"] == pytest.approx(mean)
        assert line["return"] == pytest.approx(np.mean([e["return"] for e in line["episodes"]]))


def test_the_summary_is_the_mean_of_the_last_evaluations(joint: RunFolder):
    summary = joint.read_json("summary.json")
    assert summary["position"]["step"] == 40
    evaluations = joint.read_lines(joint.evaluations)
    for entry in summary["members"]:
        own = [line for line in evaluations if line["member"] == entry["member"]]
        assert entry["return"] == pytest.approx(np.mean([line["return"] for line in own]))
        assert entry["success"] == pytest.approx(np.mean([line["success"] for line in own]))
        assert entry["mean_of_steps"] == [20, 40]


@pytest.mark.parametrize(
    ("steps", "chunk", "every"),
    [
        (1_000_000, 100, 100_000),
        (5_000_000, 100, 100_000),
        (50_000, 100, 5_000),
        (12_345, 100, 1_300),
        (40, 100, 100),
        (9, 1, 1),
    ],
)
def test_a_kill_costs_about_a_tenth_of_a_phase_at_most(steps: int, chunk: int, every: int):
    config = TrainConfig("toy", DeFlow(), steps=steps, chunk=chunk)
    spec = Spec(toy.OBS, toy.ACT, (-1.0, 0.0), steps)
    nothing: Any = None
    recorder = Recorder(config, nothing, nothing, nothing, config.phases(spec))
    assert recorder.checkpoint_every == every
    given = dataclasses.replace(config, checkpoint_every=7)
    recorder = Recorder(given, nothing, nothing, nothing, given.phases(spec))
    assert recorder.checkpoint_every == 7


def test_the_command_may_be_given_to_a_shell_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/deflow", "train", "toy", "--data", "my data.npz"])
    assert provenance({})["command"] == "deflow train toy --data 'my data.npz'"


def test_runs_that_begin_together_have_folders_of_their_own():
    config = TrainConfig("toy", DeFlow())
    first = default_run_dir(config)
    time.sleep(0.001)
    assert default_run_dir(config) != first


def test_the_folder_is_enough_to_repeat_and_to_judge_the_run(joint: RunFolder):
    config = joint.config()
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))).differences(config) == []
    assert eqx.tree_equal(config.agent, DeFlow(**toy.SMALL))
    assert (config.seeds, config.steps, config.env) == ((0, 1), 40, toy.ENV)
    provenance = joint.read_json("provenance.json")
    assert {"command", "started", "python", "versions", "machine", "dataset"} <= set(provenance)
    assert {"jax", "equinox", "optax", "numpy", "ogbench"} <= set(provenance["versions"])
    assert provenance["dataset"]["transitions"] == toy.dataset().transitions
    kept = [folder.name for folder in checkpoint.existing(joint.checkpoints)]
    assert kept == ["step-000000030", "step-000000040"]
    assert (joint.path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (joint.path / "curve.png").stat().st_size > 5000
    for seed in (0, 1):
        assert list((joint.path / "tensorboard" / f"seed{seed}").glob("events.out.tfevents.*"))


def test_the_folder_holds_no_pickle_and_nothing_half_written(
    joint: RunFolder, flow_first: RunFolder
):
    for folder in (joint, flow_first):
        names = [path.name for path in folder.path.rglob("*")]
        assert not [name for name in names if name.endswith((".pkl", ".pickle"))]
        assert not [name for name in names if "partial" in name or name.endswith(".tmp")]


def test_the_evaluation_that_scores_a_run_does_not_change_it(training: Training, joint: RunFolder):
    """The same run without an environment: no evaluations, the same parameters."""
    blind = training(schedule="joint")
    assert blind.read_lines(blind.evaluations) == []
    assert not (blind.path / "curve.png").exists()
    ours, theirs = arrays(blind), arrays(joint)
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)


def test_one_flow_may_serve_every_member(shared_flow: RunFolder, flow_first: RunFolder):
    first, second = flow_of(shared_flow, 0), flow_of(shared_flow, 1)
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    critics = [
        member(shared_flow, i)["critic.model.nets.members.0.layers.0.weight"] for i in (0, 1)
    ]
    assert not np.array_equal(*critics)
    apart, own = flow_of(flow_first, 1), flow_of(flow_first, 0)
    assert any(not np.array_equal(own[name], apart[name]) for name in own)
    for name in own:
        np.testing.assert_allclose(first[name], own[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_finished_runs_flow_may_be_taken(training: Training, flow_first: RunFolder):
    taker = training(schedule="flow-first", flow_from=str(flow_first.path), seeds=(0, 7))
    donor = member(flow_first, 0)
    for index in (0, 1):
        own = member(taker, index)
        for name in own:
            if name.startswith("flow.model"):
                assert own[name].tobytes() == donor[name].tobytes()
    assert lines(taker, "flow") == []
    # Seed 0 has the donor's flow, keys and steps, so it learns what the donor's first member did.
    for name, array in member(taker, 0).items():
        np.testing.assert_allclose(array, donor[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_tasks_on_one_dataset_share_a_flow(training: Training, flow_first: RunFolder):
    """Another task is other rewards on the same states and actions."""
    data = toy.dataset()
    other = dataclasses.replace(data, rewards=2 * data.rewards)
    taker = training(dataset=other, schedule="flow-first", flow_from=str(flow_first.path))
    taken, donor = flow_of(taker, 0), flow_of(flow_first, 0)
    weights = [name for name in donor if name.startswith("flow.model")]
    assert weights
    assert all(taken[name].tobytes() == donor[name].tobytes() for name in weights)


def test_a_flow_serves_every_task_on_its_data(
    training: Training, data: Dataset, flow_first: RunFolder
):
    """Tasks differ in rewards and in where episodes end, of which a flow knows nothing."""
    other = dataclasses.replace(data, rewards=data.rewards - 1, masks=np.ones_like(data.masks))
    taker = training(dataset=other, schedule="flow-first", flow_from=str(flow_first.path))
    own, donor = member(taker, 0), member(flow_first, 0)
    for name in own:
        if name.startswith("flow.model"):
            assert own[name].tobytes() == donor[name].tobytes()
    assert not np.array_equal(
        own["critic.model.nets.members.0.layers.0.weight"],
        donor["critic.model.nets.members.0.layers.0.weight"],
    )


def test_the_policy_reaches_the_goal_where_its_base_flow_strays(learnt: RunFolder):
    prior = judge(learnt, episodes=30, policy="prior")
    for entry, base in zip(learnt.read_json("summary.json")["members"], prior.results, strict=True):
        assert base.success is not None
        assert entry["success"] > max(0.6, base.success + 0.3)
