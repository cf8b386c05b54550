"""Learning online: what is met is kept and repeated, what is frozen stays, errors are said."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import toy
from tests.training.runs import Training, arrays, assert_same
from tests.training.test_resume import Stop, stop_at

from deflow import DeFlow, DeFlowError
from deflow.agents.bc import BC
from deflow.agents.fql import FQL
from deflow.agents.iql import IQL
from deflow.agents.rebrac import ReBRAC
from deflow.agents.sac import SAC
from deflow.api import train
from deflow.core.agent import ONLINE, Phase
from deflow.data.dataset import Dataset
from deflow.envs.lockstep import APART
from deflow.envs.seeded import SeededEnv
from deflow.training import checkpoint, task
from deflow.training import online as loops
from deflow.training.config import TrainConfig
from deflow.training.finetune import finetune
from deflow.training.held_out import hold_out
from deflow.training.recorder import Recorder
from deflow.training.run_folder import RunFolder
from deflow.training.summary import summarize
from deflow.training.train import prepare_again, resume

WORLD = {"online_steps": 40, "env": toy.ENV}


def replay_of(folder: RunFolder) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The transitions and the books of the newest checkpoint."""
    import orbax.checkpoint as ocp

    sound = checkpoint.newest_sound(folder.checkpoints)
    with ocp.StandardCheckpointer() as reader:
        found = reader.restore((sound / loops.REPLAY).absolute())
    columns = {name.rpartition(".")[2]: np.asarray(array) for name, array in found.items()}
    return columns, checkpoint.read_meta(sound)[loops.BOOKS]


@pytest.fixture(scope="module")
def offline(training: Training) -> RunFolder:
    return training(env=toy.ENV, eval_episodes=2)


@pytest.fixture(scope="module")
def online(training: Training) -> RunFolder:
    """Offline, then online, in one run of two seeds."""
    return training(**WORLD, eval_episodes=2)


def test_a_run_goes_on_from_the_data_into_the_world(online: RunFolder):
    records = online.read_lines(online.evaluations)
    own = [(r["phase"], r["step"], r["total_step"]) for r in records if r["member"] == "seed1"]
    assert own == [("joint", 20, 20), ("joint", 40, 40), ("online", 20, 60), ("online", 40, 80)]
    (first, _) = summarize(online)
    assert first["mean_of_steps"] == [40]
    assert first["before"]["return"] == records[2]["return"]
    lines = [r for r in online.read_lines(online.metrics) if r["phase"] == "online"]
    assert {line["step"] for line in lines} == {10, 20, 30, 40}
    assert all(line["critic/loss"] > 0 and line["flow/loss"] > 0 for line in lines)
    assert sum(line["online/episodes"] for line in lines if line["member"] == "seed0") >= 2


def test_what_was_met_is_what_the_environment_gives_again(online: RunFolder):
    """Every transition once and in order: the episodes, played again by their actions."""
    columns, books = replay_of(online)
    assert books["met"] == [40, 40]
    for member, seed in enumerate((0, 1)):
        env = SeededEnv(toy.make())
        episode, seen = 0, env.reset(seed + APART, 0)
        for n in range(40):
            np.testing.assert_array_equal(columns["observations"][member, n], seen)
            seen, reward, terminated, cut, _ = env.step(columns["actions"][member, n])
            np.testing.assert_array_equal(columns["next_observations"][member, n], seen)
            assert columns["rewards"][member, n] == reward
            assert columns["masks"][member, n] == (not terminated)
            if terminated or cut:
                episode += 1
                seen = env.reset(seed + APART, episode)
        assert books["episodes"][member] == episode


SLOW = pytest.mark.slow

STOPS = [
    (loops.OnlineLoop, "_step", 13),
    pytest.param(loops.OnlineLoop, "_chunk", 3, marks=SLOW),
    pytest.param(Recorder, "evaluate", 3, marks=SLOW),
    pytest.param(checkpoint, "save", 6, marks=SLOW),
]


@pytest.mark.parametrize(("where", "name", "call"), STOPS)
def test_a_run_that_was_stopped_online_ends_as_if_it_had_not_been(
    where: Any,
    name: str,
    call: int,
    training: Training,
    data: Dataset,
    online: RunFolder,
    tmp_path: Path,
):
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, where, name, call)
        with pytest.raises(Stop):
            training(**WORLD, eval_episodes=2, run_dir=tmp_path / "it")
    again = resume(tmp_path / "it", data)
    assert_same(again, online)
    (mine, my_books), (theirs, their_books) = replay_of(again), replay_of(online)
    assert my_books == their_books
    for column in theirs:
        np.testing.assert_array_equal(mine[column], theirs[column])


@pytest.mark.slow
def test_an_environment_that_does_not_repeat_itself_begins_anew_and_keeps_what_was_met(
    training: Training, data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, loops.OnlineLoop, "_chunk", 1)
        with pytest.raises(Stop):
            training(**{**WORLD, "env": "tests.training.fickle:make"}, run_dir=tmp_path / "it")
    again = resume(tmp_path / "it", data)
    assert "did not repeat its unfinished episode" in " ".join(capsys.readouterr().err.split())
    columns, books = replay_of(again)
    assert books["met"] == [40, 40]
    assert np.abs(columns["observations"]).sum(-1).min() > 0


def test_finetuning_a_finished_run_is_the_same_as_having_gone_on(
    offline: RunFolder, online: RunFolder, data: Dataset, tmp_path: Path
):
    found = finetune(offline.path, 40, run_dir=tmp_path / "it", dataset=data)
    assert_same(found, online)
    assert not (offline.path / "checkpoints" / "step-000000080").exists()


def test_a_killed_finetuning_is_resumed_from_its_own_folder(
    offline: RunFolder, online: RunFolder, data: Dataset, tmp_path: Path
):
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, loops.OnlineLoop, "_step", 3)
        with pytest.raises(Stop):
            finetune(offline.path, 40, run_dir=tmp_path / "it", dataset=data)
    assert_same(resume(tmp_path / "it", data), online)


@pytest.mark.parametrize(
    "prior",
    ["frozen", pytest.param("learns", marks=SLOW), pytest.param("coasting", marks=SLOW)],
)
def test_a_frozen_prior_stays_to_the_bit_and_one_that_coasts_moves_without_a_loss(
    prior: str, offline: RunFolder, data: Dataset, tmp_path: Path
):
    settings = {"prior_online": prior}
    found = finetune(
        offline.path, 10, run_dir=tmp_path / "it", dataset=data, settings=settings, eval_episodes=0
    )
    before, after = arrays(offline), arrays(found)
    flow = [name for name in before if name.startswith("flow") and "model" in name]
    assert flow
    same = all((before[name] == after[name]).all() for name in flow)
    assert same == (prior == "frozen")
    moments = [name for name in before if name.startswith("flow") and "model" not in name]
    assert all((before[n] == after[n]).all() for n in moments) == (prior == "frozen")
    lines = [r for r in found.read_lines(found.metrics) if r["phase"] == "online"]
    assert all(("flow/loss" in line) == (prior == "learns") for line in lines)
    critic = [name for name in before if name.startswith("critic")]
    assert any((before[name] != after[name]).any() for name in critic)


@pytest.mark.slow
def test_the_flow_first_schedule_goes_online_too(
    flow_first: RunFolder, data: Dataset, tmp_path: Path
):
    found = finetune(flow_first.path, 10, run_dir=tmp_path / "it", dataset=data, eval_episodes=0)
    lines = found.read_lines(found.metrics)
    assert [line["total_step"] for line in lines][-1] == 90
    assert lines[-1]["phase"] == "online"


@pytest.mark.slow
def test_several_updates_follow_each_step_where_asked(tmp_path: Path):
    agent = SAC(hidden=(16, 16), batch_size=16, random_steps=2)
    options = {**toy.SHORT, "seeds": (0,), "online_steps": 8, "updates_per_step": 3}
    folder = train(toy.ENV, agent, **options, run_dir=tmp_path / "it")
    assert int(np.ravel(arrays(folder)["critic.moments.0.count"])[0]) == 3 * (8 - 2)


@pytest.mark.slow
def test_rebrac_knows_the_actions_that_followed(data: Dataset, tmp_path: Path):
    agent = ReBRAC(hidden=(16, 16), batch_size=16)
    folder = train("toy", agent, dataset=data, **toy.SHORT, **WORLD, run_dir=tmp_path / "it")
    columns, _ = replay_of(folder)
    found, actions = columns["next_actions"], columns["actions"]
    apart = (columns["observations"][:, 1:] != columns["next_observations"][:, :-1]).any(-1)
    np.testing.assert_array_equal(found[:, :-1][~apart], actions[:, 1:][~apart])
    np.testing.assert_array_equal(found[:, :-1][apart], actions[:, :-1][apart])


def test_sac_begins_in_an_empty_world(tmp_path: Path):
    agent = SAC(hidden=(16, 16), batch_size=16, random_steps=12)
    options = {**toy.SHORT, "online_steps": 40, "eval_episodes": 1}
    folder = train(toy.ENV, agent, **options, run_dir=tmp_path / "it")
    records = folder.read_lines(folder.evaluations)
    assert [r["step"] for r in records if r["seed"] == 0] == [0, 20, 40]
    assert summarize(folder)[0]["before"]["return"] == records[0]["return"]
    lines = [r for r in folder.read_lines(folder.metrics) if r["member"] == "seed0"]
    assert "critic/loss" not in lines[0]
    assert lines[1]["critic/loss"] > 0
    assert int(np.ravel(arrays(folder)["critic.moments.0.count"])[0]) == 40 - 12
    columns, _ = replay_of(folder)
    assert np.abs(columns["actions"][:, :12]).max() > 0.5


def test_a_member_that_diverges_online_is_frozen_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    agent = SAC(hidden=(16, 16), batch_size=16, random_steps=0)
    rates = {"learning_rate": (1e-3, 1e30)}
    options = {**toy.SHORT, "online_steps": 40, "seeds": (0,), "over": rates}
    folder = train(toy.ENV, agent, **options, run_dir=tmp_path / "it")
    position = checkpoint.read_meta(checkpoint.newest_sound(folder.checkpoints))["position"]
    assert [entry["member"] for entry in position["frozen"]] == ["seed0-learning_rate1e+30"]
    assert "is frozen at online step" in " ".join(capsys.readouterr().err.split())
    assert all(np.isfinite(array).all() for array in arrays(folder).values())
    last = folder.read_lines(folder.metrics)[-1]
    assert (last["member"], last["step"]) == ("seed0-learning_rate0.001", 40)
    assert replay_of(folder)[1]["met"] == [40, 40]


def test_a_worker_that_dies_costs_its_episode_and_the_run_goes_on(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    fatal = "tests.training.fickle:make_fatal"
    folder = training(**{**WORLD, "env": fatal}, run_dir=tmp_path / "it")
    said = " ".join(capsys.readouterr().err.split())
    assert "seed0 gives up episode 1 (steps dropped: 3)" in said
    columns, books = replay_of(folder)
    # Three steps of the episode, and the one in which the worker died.
    assert books["met"] == [36, 40]
    assert np.abs(columns["observations"][0, :36]).sum(-1).min() > 0
    lines = [r for r in folder.read_lines(folder.metrics) if r["phase"] == "online"]
    lost = {label: 0.0 for label in ("seed0", "seed1")}
    for line in lines:
        lost[line["member"]] += line["online/lost_episodes"]
        assert line["online/failures"] == line["online/lost_episodes"]
    assert lost == {"seed0": 1, "seed1": 0}


def test_a_setting_on_which_a_column_depends_cannot_vary_inside_a_family(data: Dataset):
    from deflow.agents.calql import CalQL

    agent, over = CalQL(hidden=(16, 16), batch_size=16), {"discount": (0.9, 0.99)}
    with pytest.raises(DeFlowError, match="discount cannot vary inside a family, since the data's"):
        train("toy", agent, dataset=data, **{**toy.SHORT, "over": over})


# What is wrong is said before anything is written ---------------------------------------------


@pytest.mark.parametrize(
    ("agent", "options", "message"),
    [
        (BC(hidden=(16, 16)), {}, "bc is not made to learn online"),
        (FQL(**toy.SMALL), {"env": None}, "names no environment to act in"),
        (FQL(**toy.SMALL), {"env": "tests.toy:make_blind"}, "belongs to the data"),
        (FQL(**toy.SMALL), {"updates_per_step": 0}, "updates_per_step"),
        (FQL(**toy.SMALL), {"online_steps": -1}, "online_steps"),
        (FQL(**toy.SMALL), {"env_patience": 0.0}, "env_patience"),
        (SAC(hidden=(16, 16)), {"online_steps": 0}, "learns online alone"),
        (SAC(hidden=(16, 16)), {"dataset": None}, "first 10,000 steps of sac are random"),
        (SAC(hidden=(16, 16), random_steps=5), {}, "sac learns without data: leave the data"),
    ],
)
def test_what_cannot_be_learnt_online_is_refused(
    agent: Any, options: dict[str, Any], message: str, data: Dataset, tmp_path: Path
):
    chosen = {**toy.SHORT, **WORLD, "dataset": data, **options}
    with pytest.raises(DeFlowError, match=message):
        train("toy", agent, **chosen, run_dir=tmp_path / "it")
    assert not (tmp_path / "it").exists()


def test_frames_are_refused(tmp_path: Path):
    from tests import seen

    with pytest.raises(DeFlowError, match="from frames nothing is learnt online"):
        train(
            "seen",
            "deflow",
            dataset=seen.dataset(),
            online_steps=5,
            env=seen.ENV,
            run_dir=tmp_path / "it",
        )


def test_finetuning_what_cannot_be_finetuned_is_refused(
    offline: RunFolder, online: RunFolder, flow_first: RunFolder, data: Dataset, tmp_path: Path
):
    def refused(message: str, folder: RunFolder, **options: Any) -> None:
        options = {"dataset": data, "run_dir": tmp_path / "it", **options}
        with pytest.raises(DeFlowError, match=message):
            finetune(folder.path, 10, **options)
        assert not (tmp_path / "it").exists()

    refused("has learnt online already", online)
    refused("trained on other data", offline, dataset=toy.dataset(seed=5))
    refused("is a run of its own|trained on your own data", offline, dataset=None)
    refused("other sizes", offline, settings={"hidden": (8, 8)})
    refused("leave prior_steps as it was", flow_first, settings={"prior_steps": 5}, env=toy.ENV)
    refused("no setting", offline, settings={"alpha": 3.0})
    refused("seeds is what the run was trained with", offline, seeds=(7, 8))
    refused("belongs to the data", offline, env="tests.toy:make_blind")
    half = RunFolder(Path(shutil.copytree(offline.path, tmp_path / "half")))
    (half.path / "summary.json").unlink()
    refused("is not finished", half)


@pytest.mark.parametrize(
    ("settings", "options", "kept"),
    [
        ({}, {}, True),
        ({}, {"eval_every": 7}, True),
        ({}, {"eval_episodes": 3}, False),
        ({}, {"eval_seed": 3}, False),
        ({}, {"eval_episodes": 0}, True),
        ({"integration_steps": 3}, {}, False),
    ],
)
def test_what_is_judged_otherwise_online_is_judged_so_before_it_too(
    offline: RunFolder, tmp_path: Path, settings: Any, options: Any, kept: bool
):
    config = offline.config()
    agent = dataclasses.replace(config.agent, **settings)
    config = dataclasses.replace(config, agent=agent, online_steps=5, **options)
    about = (offline.dataset(), offline.spec(), offline.read_json("conversion.json"))
    begun = RunFolder.create(tmp_path / "it", config, *about, begun=offline)
    there = [r["total_step"] for r in begun.read_lines(begun.evaluations)]
    before = [r["total_step"] for r in offline.read_lines(offline.evaluations)]
    assert max(before) == 40
    assert there == (before if kept else [step for step in before if step < 40])


def test_an_older_configuration_is_read_as_a_run_that_stayed_offline(offline: RunFolder):
    document = json.loads((offline.path / "config.json").read_text())
    for name in ("online_steps", "updates_per_step", "overwrite", "env_patience"):
        del document[name]
    from deflow.training.config import TrainConfig

    config = TrainConfig.from_json(document)
    assert config.online_steps == 0
    assert config.differences(offline.config()) == []
    assert isinstance(config.agent, DeFlow)


# What a run says of itself --------------------------------------------------------------------


@pytest.mark.slow
def test_a_policy_that_was_never_judged_is_judged_before_it_goes_on_learning(
    training: Training, data: Dataset, tmp_path: Path
):
    blind = training(eval_episodes=0)
    options = {"env": toy.ENV, "eval_episodes": 1, "eval_every": 5}
    found = finetune(blind.path, 5, run_dir=tmp_path / "it", dataset=data, **options)
    records = found.read_lines(found.evaluations)
    assert [(r["phase"], r["step"]) for r in records if r["seed"] == 0] == [
        ("joint", 40),
        ("online", 5),
    ]
    assert summarize(found)[0]["before"]["return"] == records[0]["return"]
    origin = found.read_json("provenance.json")["begun_from"]
    assert (origin["run"], origin["checkpoint"]) == (blind.path.name, "step-000000040")
    assert "run_dir" not in origin["config"]


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_begins_again_and_says_all_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    agent = SAC(hidden=(16, 16), batch_size=16, random_steps=5)
    options = {**toy.SHORT, "online_steps": 30, "eval_episodes": 1, "seeds": (0,)}
    whole = train(toy.ENV, agent, **options, run_dir=tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, loops.OnlineLoop, "_step", 8)
        with pytest.raises(Stop):
            train(toy.ENV, agent, **options, run_dir=tmp_path / "it")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, loops.OnlineLoop, "_save", 2)
        with pytest.raises(Stop):
            resume(tmp_path / "it")
    capsys.readouterr()
    assert_same(resume(tmp_path / "it"), whole)
    assert "at least 10 steps are done again" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_data_read_in_other_units_are_refused(tmp_path: Path):
    from deflow.data.own import load_own

    file = toy.save(tmp_path / "toy.npz")
    own = load_own(file, normalize_observations=True)
    options = {**toy.SHORT, "env": toy.ENV, "steps": 2}
    agent = IQL(hidden=(16, 16), batch_size=16)
    folder = train("toy", agent, dataset=own, **options, run_dir=tmp_path / "run")
    with pytest.raises(DeFlowError, match="scaled or normalised otherwise"):
        finetune(folder.path, 2, dataset=own.dataset, run_dir=tmp_path / "it")
    found = finetune(folder.path, 2, dataset=own, run_dir=tmp_path / "it")
    columns, _ = replay_of(found)
    env = SeededEnv(toy.make())
    seen = own.transforms.observation(env.reset(APART, 0))
    np.testing.assert_array_equal(columns["observations"][0, 0], seen)


def test_a_phase_has_ten_checkpoints_in_whole_chunks_but_where_nothing_can_be_met_again(
    training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found: list[int] = []
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *a, **k: (found.append(a[1]), save(*a, **k))[1])
    training(**WORLD, checkpoint_every=0, run_dir=tmp_path / "it")
    assert found == [10, 20, 30, 40, *range(44, 81, 4)]


def test_a_resume_without_a_checkpoint_says_what_is_done_again(
    training: Training,
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    with monkeypatch.context() as patch:
        stop_at(patch, Recorder, "save", 0)
        with pytest.raises(Stop):
            training(checkpoint_every=0, run_dir=tmp_path / "it")
    capsys.readouterr()
    resume(tmp_path / "it", dataset=data)
    said = " ".join(capsys.readouterr().err.split())
    assert "There is no checkpoint yet: at least 10 steps are done again" in said


def test_a_world_that_fails_while_it_is_judged_in_is_begun_again(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    marks = tmp_path / "marks"
    marks.mkdir()
    os.environ["DEFLOW_TEST_MARKS"] = str(marks)
    try:
        folder = training(
            env="tests.training.fickle:make_frail", eval_episodes=2, run_dir=tmp_path / "it"
        )
    finally:
        del os.environ["DEFLOW_TEST_MARKS"]
    assert "The evaluation begins again" in " ".join(capsys.readouterr().err.split())
    assert len(folder.read_lines(folder.evaluations)) == 4


@pytest.mark.slow
def test_what_was_met_is_kept_where_judging_fails(
    offline: RunFolder, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Between two checkpoints; and a resume judges there first, then goes on."""

    def fail(*_: object) -> None:
        raise DeFlowError("No world to be judged in.")

    options = {"dataset": data, "eval_every": 6, "checkpoint_every": 4}
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "evaluate", fail)
        with pytest.raises(DeFlowError, match="No world"):
            finetune(offline.path, 10, run_dir=tmp_path / "it", **options)
    folder = RunFolder(tmp_path / "it")
    assert replay_of(folder)[1]["met"] == [6, 6]
    again = resume(folder.path, data)
    assert_same(again, finetune(offline.path, 10, run_dir=tmp_path / "whole", **options))


def test_online_a_long_chunk_does_not_put_off_what_is_looked_after(online: RunFolder):
    every = {"chunk": 1000, "log_every": 1000, "checkpoint_every": 1000, "eval_every": 1000}
    config = dataclasses.replace(online.config(), online_steps=150, **every)
    rest: Any = None
    phases = [Phase(name, 150, 1, rest, rest) for name in ("joint", ONLINE)]
    recorder = Recorder(config, rest, online, rest, phases)
    assert recorder.until_next(judged=True) == 150
    recorder.position.phase = 1
    assert recorder.until_next(judged=True) == 100


def test_a_run_that_went_online_is_judged_by_its_data_too(online: RunFolder, data: Dataset):
    found = hold_out(online, online.config(), data, share=0.25, seed=0)
    assert found.fit.transitions + found.held.transitions == data.transitions


def test_a_run_is_taken_up_with_a_file_of_its_data(offline: RunFolder, tmp_path: Path):
    file = toy.save(tmp_path / "mine.npz")
    for given in (file, str(file)):
        job = prepare_again(offline, offline.config(), given)
        assert job.logged().fingerprint() == toy.dataset().fingerprint()


def test_a_run_stays_in_its_task(offline: RunFolder, data: Dataset, tmp_path: Path):
    with pytest.raises(DeFlowError, match="a run stays in its task"):
        finetune(
            offline.path,
            4,
            run_dir=tmp_path / "it",
            dataset=data,
            env="tests.training.fickle:make",
        )
    assert not (tmp_path / "it").exists()


def test_frames_are_refused_before_anything_is_drawn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(task, "make_env", lambda *_: pytest.fail("made"))
    visual = "visual-cube-single-play-singletask-task1-v0"
    with pytest.raises(DeFlowError, match="from frames nothing is learnt online"):
        task.prepare(TrainConfig(visual, SAC(), online_steps=20_000))


def test_an_agent_without_data_learns_the_rewards_that_the_others_do():
    found = task.prepare(TrainConfig("antmaze-umaze-v2", SAC(), online_steps=20_000))
    assert found.transforms.reward_shift == -1
