"""A member that diverges is frozen at its last good state and named; the others go on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import toy
from tests.training.runs import Training, assert_same, member

from deflow import DeFlowError, load_policy
from deflow.data.dataset import Dataset
from deflow.training.family import members_of
from deflow.training.guard import Guard
from deflow.training.recorder import Recorder
from deflow.training.run_folder import RunFolder
from deflow.training.train import resume

# The guard alone, on states that count their updates --------------------------------------------

MEMBERS = tuple(members_of((0, 1), {}))


def counter(steps: int) -> dict[str, np.ndarray]:
    return {"count": np.full((2, 1), float(steps))}


class Chunks:
    """Chunks of five steps, in which losses are 1 but where told otherwise."""

    def __init__(self, bad: dict[tuple[int, int], str], broken_after: dict[int, int] | None = None):
        self.guard, self.step, self.states = Guard(MEMBERS), 0, counter(0)
        self.bad, self.broken_after = bad, broken_after or {}

    def after(self, steps: int) -> dict[str, np.ndarray]:
        states = counter(steps)
        for index, last in self.broken_after.items():
            if steps > last:
                states["count"][index] = np.inf
        return states

    def next(self) -> list[Any]:
        begin = self.step
        metrics = {name: np.ones((5, 2)) for name in ("critic/loss", "actor/loss", "actor/q")}
        for (step, index), term in self.bad.items():
            if step >= begin:
                metrics[term][step - begin : begin + 5, index] = np.nan
        known = len(self.guard.frozen)
        self.states = self.guard.check(
            self.states,
            self.after(begin + 5),
            metrics,
            "joint",
            lambda number: max(begin + number, 0),
            lambda steps: self.after(begin + steps),
        )
        self.step += 5
        return self.guard.frozen[known:]

    @property
    def counts(self) -> list[float]:
        return [float(value) for value in np.asarray(self.states["count"])[:, 0]]


def test_nothing_happens_while_all_is_finite():
    chunks = Chunks({})
    assert chunks.next() == chunks.next() == []
    assert chunks.counts == [10, 10]


@pytest.mark.parametrize("step", [1, 2, 4, 5, 6, 9])
def test_the_state_kept_is_the_last_whose_loss_was_finite(step: int):
    """The loss of step n is computed on the state after n updates."""
    chunks = Chunks({(step, 1): "actor/loss"})
    news = [entry for _ in range(3) for entry in chunks.next()]
    assert [(entry.member, entry.term) for entry in news] == [("seed1", "actor/loss")]
    assert chunks.counts == [15, step - 1]
    assert news[0].step == step - 1
    assert "seed1 is frozen" in news[0].sentence()
    assert "actor/loss" in news[0].sentence()


def test_in_chunks_of_one_step_no_empty_chunk_is_run_again():
    """From frames there is no such thing as a chunk of no steps."""
    guard, states = Guard(MEMBERS), counter(0)

    def replay(steps: int) -> dict[str, np.ndarray]:
        pytest.fail(f"{steps} steps were asked for")

    for step in range(4):
        losses = {"loss": np.array([[1.0, np.nan if step == 2 else 1.0]])}
        after = counter(step + 1)
        states = guard.check(states, after, losses, "joint", lambda n, at=step: at + n, replay)
    assert np.asarray(states["count"])[:, 0].tolist() == [4, 1]
    assert [(entry.member, entry.step) for entry in guard.frozen] == [("seed1", 1)]


def test_a_loss_that_is_never_finite_keeps_the_beginning():
    chunks = Chunks({(0, 0): "critic/loss"})
    assert [entry.step for entry in chunks.next()] == [0]
    assert chunks.counts == [0, 5]


def test_the_term_that_broke_first_is_named():
    chunks = Chunks({(3, 0): "actor/loss", (2, 0): "critic/loss"})
    assert [entry.term for entry in chunks.next()] == ["critic/loss"]


def test_only_losses_are_watched_and_parameters():
    chunks = Chunks({(1, 0): "actor/q"}, broken_after={1: 4})
    (entry,) = chunks.next()
    assert (entry.member, entry.term) == ("seed1", "a parameter")
    assert chunks.counts == [5, 4]


def test_two_members_may_fail_in_one_chunk():
    chunks = Chunks({(2, 0): "actor/loss", (7, 1): "critic/loss"})
    chunks.next()
    with pytest.raises(DeFlowError, match="No member of the run is left") as failure:
        chunks.next()
    assert "critic/loss" in str(failure.value)
    assert chunks.counts[0] == 1


# In a run --------------------------------------------------------------------------------------

RATES = {"learning_rate": (3e-4, 1e30)}


@pytest.fixture(scope="module")
def diverged(training: Training) -> RunFolder:
    return training(schedule="joint", seeds=(0,), over=RATES, env=toy.ENV, eval_episodes=4)


def test_the_member_is_frozen_at_a_finite_state_and_reported(diverged: RunFolder):
    (entry,) = diverged.read_json("summary.json")["position"]["frozen"]
    assert entry["member"] == "seed0-learning_rate1e+30"
    assert entry["phase"] == "joint"
    assert 0 <= entry["step"] <= 2
    assert entry["term"].endswith("loss") or entry["term"] == "a parameter"
    frozen = member(diverged, 1)
    assert all(np.isfinite(array).all() for array in frozen.values())
    # Numbers may be finite and still no policy: the last good state acts.
    policy = load_policy(diverged.path, member="seed0-learning_rate1e+30")
    assert np.isfinite(policy(np.zeros((5, toy.OBS)))).all()


def test_nothing_is_logged_of_it_and_what_is_logged_of_the_other_is_finite(diverged: RunFolder):
    lines = diverged.read_lines(diverged.metrics)
    assert lines
    for line in lines:
        assert line["member"] == "seed0-learning_rate0.0003"
        assert all(math.isfinite(v) for v in line.values() if isinstance(v, float))


def test_the_report_reaches_the_screen(training: Training, capsys: pytest.CaptureFixture[str]):
    training(schedule="joint", seeds=(0,), over=RATES, steps=10)
    heard = " ".join(capsys.readouterr().err.split())
    assert "seed0-learning_rate1e+30 is frozen at joint step" in heard


def test_the_others_learn_what_they_would_without_it(diverged: RunFolder, joint: RunFolder):
    """The joint run's first seed has the same rate and no such neighbour."""
    ours, theirs = member(diverged, 0), member(joint, 0)
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6, err_msg=name)
    for here, there in zip(
        diverged.read_lines(diverged.metrics)[:2],
        joint.read_lines(joint.metrics)[::2],
        strict=False,
    ):
        for name in here:
            if name.endswith("loss"):
                assert here[name] == pytest.approx(there[name], rel=1e-4, abs=1e-6)


def test_a_member_that_fails_in_the_flow_stays_frozen_in_the_policy(training: Training):
    folder = training(schedule="flow-first", seeds=(0,), over=RATES, env=toy.ENV, eval_episodes=4)
    (entry,) = folder.read_json("summary.json")["position"]["frozen"]
    assert entry["phase"] == "flow"
    assert entry["term"] == "flow/loss"
    assert all(np.isfinite(array).all() for array in member(folder, 1).values())
    assert not [
        line
        for line in folder.read_lines(folder.metrics)
        if line["phase"] == "policy" and line["member"] == entry["member"]
    ]


@pytest.mark.parametrize("schedule", ["joint", "flow-first"])
def test_a_run_without_a_member_left_ends_with_a_clear_error(training: Training, schedule: str):
    with pytest.raises(DeFlowError, match="No member of the run is left to train") as failure:
        training(schedule=schedule, seeds=(0,), over={"learning_rate": (1e29, 1e30)})
    assert "loss" in str(failure.value)
    assert "learning_rate" in str(failure.value)


def test_a_resumed_run_keeps_the_member_frozen(
    training: Training,
    diverged: RunFolder,
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "evaluate", _stop)
        with pytest.raises(KeyboardInterrupt):
            training(
                schedule="joint",
                seeds=(0,),
                over=RATES,
                env=toy.ENV,
                eval_episodes=4,
                run_dir=tmp_path / "it",
            )
    assert_same(resume(tmp_path / "it", data), diverged)


def _stop(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_an_evaluation_between_the_bad_step_and_its_loss_does_not_end_the_run(training: Training):
    """The parameters are absurd after the first update, and the loss that shows it comes next."""
    folder = training(
        schedule="joint",
        seeds=(0,),
        over=RATES,
        env=toy.ENV,
        eval_episodes=4,
        steps=2,
        chunk=1,
        log_every=1,
        checkpoint_every=1,
        eval_every=1,
    )
    (entry,) = folder.read_json("summary.json")["position"]["frozen"]
    assert entry["member"] == "seed0-learning_rate1e+30"
    assert len(folder.read_lines(folder.evaluations)) >= 2
