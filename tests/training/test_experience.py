"""The replay holds what was met, once and in order, and what may be drawn is what is there."""

from __future__ import annotations

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import toy

from deflow import DeFlowError
from deflow.core.types import Spec
from deflow.data.dataset import Dataset
from deflow.envs.lockstep import Steps
from deflow.training import experience as rooms
from deflow.training.device_data import DeviceData
from deflow.training.experience import Experience, room_of
from deflow.training.replay import sample

SPEC = Spec(3, 2, (-1.0, 0.0), 1)
DISCOUNT = 0.9
RETURNS = {"returns": {"discount": DISCOUNT, "scale": 2.0, "bias": -1.0}}
FATES = st.sampled_from(["goes on", "goes on", "goes on", "cut off", "terminated", "lost"])


def made(
    members: int = 2, room: int = 9, fields: tuple[str, ...] = (), **options: Any
) -> Experience:
    options = {"dataset": None, **options}
    return Experience(SPEC, members, room, fields, RETURNS, **options)


def step_of(number: int, fates: list[str]) -> Steps:
    """Step `number` of every member, in numbers that tell which it is."""
    members = len(fates)
    own = 100.0 * np.arange(members)[:, None] + number
    rows = lambda width, add: np.repeat(own + add, width, 1).astype(np.float32)  # noqa: E731
    fate = np.array(fates)
    nothing = np.zeros(members)
    return Steps(
        observations=rows(3, 0.0),
        actions=rows(2, 0.25),
        rewards=rows(1, 0.5)[:, 0],
        masks=(fate != "terminated").astype(np.float32),
        next_observations=rows(3, 0.75),
        ended=(fate == "cut off") | (fate == "terminated"),
        lost=fate == "lost",
        success=nothing,
        episodes=nothing.astype(np.int64),
        returns=nothing,
        lengths=nothing.astype(np.int64),
    )


class Books:
    """One member's transitions in a plain list, to hold the replay against."""

    def __init__(self) -> None:
        self.kept: list[float] = []
        self.begun = 0
        self.following: list[float] = []

    def add(self, number: float, fate: str) -> None:
        if fate == "lost":
            del self.kept[self.begun :], self.following[self.begun :]
            return
        if len(self.kept) > self.begun:
            self.following[-1] = number + 0.25
        self.kept.append(number)
        self.following.append(number + 0.25)
        if fate != "goes on":
            self.begun = len(self.kept)


@settings(max_examples=25)
@given(st.lists(st.tuples(FATES, FATES), min_size=1, max_size=9))
def test_each_member_keeps_what_it_met_in_order_but_for_lost_episodes(fates: list[Any]):
    experience, books = made(fields=("next_actions",)), [Books(), Books()]
    for number, both in enumerate(fates):
        experience.add(step_of(number, list(both)))
        for member, fate in enumerate(both):
            books[member].add(100.0 * member + number, fate)
    for member, own in enumerate(books):
        count = len(own.kept)
        assert experience.met[member] == count
        assert experience.begun[member] == own.begun
        replay = jax.tree.map(lambda column, m=member: np.asarray(column[m]), experience.replay)
        np.testing.assert_array_equal(replay.observations[:count, 0], own.kept)
        np.testing.assert_array_equal(replay.rewards[:count], np.array(own.kept) + 0.5)
        np.testing.assert_array_equal(
            replay.next_observations[:count, 2], np.array(own.kept) + 0.75
        )
        np.testing.assert_array_equal(replay.fields["next_actions"][:count, 1], own.following)
        np.testing.assert_array_equal(
            experience.unfinished(member)[:, 0], np.array(own.kept[own.begun :]) + 0.25
        )
    counts = [len(own.kept) for own in books]
    reach = experience.reach()
    assert (reach is None) == (0 in counts)
    if reach is not None:
        np.testing.assert_array_equal(reach.high, counts)
        np.testing.assert_array_equal(reach.low, 0)


def test_returns_are_known_and_in_reach_when_an_episode_has_ended():
    data = toy.dataset()
    experience = made(1, fields=("returns",), dataset=data)
    for number, fate in enumerate(["goes on", "goes on", "terminated", "goes on"]):
        experience.add(step_of(number, [fate]))
        reach = experience.reach()
        assert reach is not None
        assert int(reach.high[0]) - data.transitions == (3 if number >= 2 else 0)
    rewards = 2 * (np.arange(3) + 0.5) - 1
    last = rewards[2]
    expected = [
        rewards[0] + DISCOUNT * (rewards[1] + DISCOUNT * last),
        rewards[1] + DISCOUNT * last,
        last,
    ]
    np.testing.assert_allclose(experience.replay.fields["returns"][0, :3], expected, rtol=1e-6)


def test_returns_of_rewards_as_they_are_need_a_discount_alone():
    settings = {"returns": {"discount": DISCOUNT}}
    experience = Experience(SPEC, 1, 9, ("returns",), settings, None)
    for number, fate in enumerate(["goes on", "terminated"]):
        experience.add(step_of(number, [fate]))
    np.testing.assert_allclose(
        experience.replay.fields["returns"][0, :2], [0.5 + DISCOUNT * 1.5, 1.5], rtol=1e-6
    )


def test_episodes_of_other_lengths_need_no_other_programs(caplog: pytest.LogCaptureFixture):
    experience = made(1, 40, ("returns",))

    def play(length: int) -> None:
        for step in range(length):
            experience.add(step_of(step, ["cut off" if step == length - 1 else "goes on"]))

    play(2)
    with jax.log_compiles():
        play(3)
        play(5)
    assert "Compiling" not in caplog.text


def test_an_episode_of_nothing_but_failure_is_taken_to_go_on_for_ever():
    experience = made(1, fields=("returns",), dataset=toy.dataset())
    for number in range(3):
        met = step_of(number, ["cut off" if number == 2 else "goes on"])
        met.rewards[:] = -1.0  # The worst that the toy's data hold.
        experience.add(met)
    forever = (2 * -1.0 - 1.0) / (1 - DISCOUNT)
    np.testing.assert_allclose(experience.replay.fields["returns"][0, :3], forever, rtol=1e-6)


@pytest.mark.parametrize("balanced", [False, True])
def test_batches_are_drawn_from_data_and_replay_alike_or_half_and_half(balanced: bool):
    dataset = toy.dataset()
    spec = Spec(toy.OBS, toy.ACT, (-1.0, 0.0), 1)
    experience = Experience(spec, 1, dataset.transitions * 2, (), {}, dataset)
    for _ in range(dataset.transitions // 4):
        one = step_of(7, ["goes on"])
        wide = np.full((1, toy.OBS), 777.0, np.float32)
        experience.add(Steps(**{**vars(one), "observations": wide, "next_observations": wide}))
    reach, data = experience.reach(), DeviceData.from_dataset(dataset)
    assert reach is not None
    own = jax.tree.map(lambda leaf: leaf[0], (experience.replay, reach))
    batch = sample(jax.random.key(0), 4000, data, {}, *own, balanced)
    from_replay = np.asarray(batch.observations[:, 0] == 777.0)
    if balanced:
        assert from_replay.sum() == 2000
    else:
        assert from_replay.mean() == pytest.approx(0.2, abs=0.03)
    logged = np.asarray(batch.observations)[~from_replay]
    assert np.isin(logged[:, 0], dataset.observations[dataset.rows, 0]).all()
    assert len(np.unique(logged[:, 0])) > 0.9 * dataset.transitions * (1 - 0.2)


def test_balanced_batches_are_of_the_data_alone_until_something_was_met():
    dataset = toy.dataset()
    experience = Experience(Spec(toy.OBS, toy.ACT, (-1, 0), 1), 1, 5, (), {}, dataset)
    reach = experience.reach()
    assert reach is not None
    own = jax.tree.map(lambda leaf: leaf[0], (experience.replay, reach))
    batch = sample(jax.random.key(0), 64, DeviceData.from_dataset(dataset), {}, *own, True)
    assert np.isin(np.asarray(batch.observations[:, 0]), dataset.observations[:, 0]).all()


def test_the_published_buffer_gives_up_the_oldest_of_the_data_first(
    monkeypatch: pytest.MonkeyPatch,
):
    dataset = toy.dataset()
    count = dataset.transitions
    monkeypatch.setattr(rooms, "PUBLISHED_ROOM", 10)
    spec = Spec(toy.OBS, toy.ACT, (-1.0, 0.0), 1)
    whole = Experience(spec, 1, 6, (), {}, dataset)
    published = Experience(spec, 1, 6, (), {}, dataset, overwrite=True)
    assert room_of(10**7, dataset, True) == count + 1
    assert room_of(10**7, dataset, False) == 10**7
    wide = np.zeros((1, toy.OBS), np.float32)
    for number in range(6):
        one = {**vars(step_of(number, ["goes on"])), "observations": wide}
        for experience in (whole, published):
            experience.add(Steps(**{**one, "next_observations": wide}))
        kept, window = whole.reach(), published.reach()
        assert kept is not None
        assert window is not None
        assert int(kept.low[0]) == 0
        # It holds one more than the data: the second transition displaces the first.
        assert int(window.low[0]) == number
        assert int(window.high[0]) == int(kept.high[0]) == count + number + 1


def test_a_ring_that_has_gone_round_forgets_the_oldest_and_never_gives_what_was_overwritten(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(rooms, "PUBLISHED_ROOM", 4)
    experience = Experience(SPEC, 1, 100, (), {}, None, overwrite=True)
    assert experience.room == 4
    fates = ["goes on"] * 3 + ["cut off"] + ["goes on"] * 2 + ["lost"] + ["goes on"]
    for number, fate in enumerate(fates):
        experience.add(step_of(number, [fate]))
    reach = experience.reach()
    assert reach is not None
    # 4 and 5 stood in the places of 0 and 1 when they were lost; 7 took that of 4.
    assert (int(reach.low[0]), int(reach.high[0])) == (2, 5)
    own = jax.tree.map(lambda leaf: leaf[0], (experience.replay, reach))
    batch = sample(jax.random.key(0), 256, None, {}, *own, False)
    assert set(np.asarray(batch.observations[:, 0]).tolist()) == {2.0, 3.0, 7.0}


def test_what_was_overwritten_stays_out_of_reach_when_a_lost_episode_takes_the_count_back(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(rooms, "PUBLISHED_ROOM", 4)
    data = Dataset.from_arrays(np.eye(3), np.zeros((3, 2)), np.zeros(3), [False] * 3)
    experience = Experience(SPEC, 1, 100, (), {}, data, overwrite=True)
    assert (data.transitions, experience.room) == (2, 4)
    fates = ["goes on"] * 2 + ["cut off"] + ["goes on"] * 2 + ["lost"]
    for number, fate in enumerate(fates):
        experience.add(step_of(number, [fate]))
    reach = experience.reach()
    assert reach is not None
    # 4 stood in the place of 0 when it was lost; 1 and 2 are what is left.
    assert (int(reach.low[0]), int(reach.high[0])) == (2 + 1, 2 + 3)


def test_what_a_checkpoint_keeps_comes_back():
    experience = made(2, 9, ("returns", "next_actions"))
    for number, fates in enumerate([["goes on", "cut off"], ["lost", "goes on"], ["cut off"] * 2]):
        experience.add(step_of(number, fates))
    again = made(2, 9, ("returns", "next_actions"))
    books = experience.books()
    shapes = again.like(books)
    assert shapes.rewards.shape == (2, 3)
    again.restore(books, experience.arrays())
    assert again.books() == books
    for mine, theirs in zip(
        jax.tree.leaves(again.replay), jax.tree.leaves(experience.replay), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    for both in (experience, again):
        both.add(step_of(3, ["cut off", "goes on"]))
    np.testing.assert_array_equal(
        jnp.asarray(again.replay.fields["returns"]), experience.replay.fields["returns"]
    )


def test_a_column_that_cannot_be_kept_up_is_named():
    with pytest.raises(DeFlowError, match="previous_actions cannot be kept up online"):
        rooms.require_room(SPEC, 2, 9, ("previous_actions",))


def test_a_replay_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch):
    size = rooms.require_room(SPEC, 2, 1000, ())
    # A resumed run has two, the one that it reads too; the data are not on the device yet.
    for free, beside, fits in [
        (1000, 0, False),
        (2 * size - 1, 0, False),
        (2 * size, 0, True),
        (2 * size, 1, False),
    ]:
        monkeypatch.setattr(rooms, "free_memory", lambda free=free: free)
        expected = pytest.raises(DeFlowError, match="take fewer steps online")
        with contextlib.nullcontext() if fits else expected:
            rooms.require_room(SPEC, 2, 1000, (), beside)


def test_an_episode_of_no_steps_may_be_given_up():
    own = made(fields=("returns",))
    own.add(step_of(0, ["goes on", "cut off"]))
    own.end_episodes(np.array([0, 1]))
    assert (own.begun.tolist(), own.met.tolist()) == ([1, 1], [1, 1])
