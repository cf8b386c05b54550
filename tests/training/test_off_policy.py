"""Judging runs by data alone: on the toy, where what a policy earns is known from playing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import toy

from deflow import DeFlowError, train
from deflow.core.agent import Agent, Phase
from deflow.core.settings import setting
from deflow.data.dataset import Dataset
from deflow.data.own import Own
from deflow.data.transforms import Transforms
from deflow.training.bootstrap import bootstrap, mean_of, rank_correlation_of, slope_of
from deflow.training.family import PURPOSES, Member
from deflow.training.held_out import discounted_returns
from deflow.training.off_policy import OffPolicy, off_policy
from deflow.training.run_folder import RunFolder
from deflow.value.fqe import FQE

SMALL = FQE(hidden=(32, 32), batch_size=64, learning_rate=3e-3, tau=0.02)
DISCOUNT = 0.9


class Given(Agent):
    """An agent that has nothing to learn."""

    discount: float = setting(DISCOUNT, above=0, below=1)

    def init(self, key: Any, spec: Any) -> Any:
        return {"nothing": jnp.zeros(1)}

    def phases(self, spec: Any, schedule: str) -> tuple[Phase, ...]:
        return (
            Phase(
                "rest",
                spec.total_steps,
                8,
                lambda agent, key: (),
                lambda agent, state, batch, noise, clock: (state, {"rest/loss": jnp.zeros(())}),
            ),
        )

    def draw_act(self, key: Any, spec: Any) -> Any:
        return ()


class Aim(Given):
    """Goes to the toy's goal, the faster the greater its gain; below 0 it flees."""

    name: ClassVar[str] = "aim"
    gain: float = setting(1.0)

    def act(self, state: Any, observations: Any, noise: Any, mode: Any) -> Any:
        way = (observations[:, 2:] - observations[:, :2]) / toy.STRIDE
        return jnp.clip(self.gain * way, -1, 1)


class Count(Given):
    """Knows what follows where each step costs 1 and the observation is the number of steps left:
    its Q is `scale` times that."""

    name: ClassVar[str] = "count"
    scale: float = setting(1.0)

    def act(self, state: Any, observations: Any, noise: Any, mode: Any) -> Any:
        return jnp.full((len(observations), 1), 0.5)

    def value(self, state: Any, observations: Any, actions: Any) -> Any:
        return -self.scale * (1 - DISCOUNT ** observations[:, 0]) / (1 - DISCOUNT)


class Paid(Count):
    """The same in rewards of 2 r - 1, so that each step costs 3."""

    name: ClassVar[str] = "paid"
    reward_scale: float = setting(2.0)
    reward_bias: float = setting(-1.0)


def rested(agent: Agent, data: Dataset, path: Path, **over: Any) -> RunFolder:
    """A run of an agent that does not learn."""
    options: dict[str, Any] = {"steps": 1, "chunk": 1, "eval_episodes": 0, "over": over}
    return train("toy", agent, dataset=data, run_dir=path, **options)


# Values ----------------------------------------------------------------------------------------

GAINS = (1.0, 0.15, -0.2)
DATA = toy.dataset(150)


@pytest.fixture(scope="module")
def aiming(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return rested(Aim(), DATA, tmp_path_factory.mktemp("run") / "aim", gain=GAINS)


@pytest.fixture(scope="module")
def found(aiming: RunFolder) -> OffPolicy:
    return off_policy(aiming, dataset=DATA, steps=2500, settings=SMALL)


def played(gain: float) -> float:
    """The mean discounted return from where episodes of the data begin, played to the end."""
    first = DATA.rows[np.unique(DATA.episodes, return_index=True)[1]]
    returns = []
    for state in DATA.observations[first]:
        total, step, reached = 0.0, 0, False
        while not reached and step < 100:
            way = (state[2:] - state[:2]) / toy.STRIDE
            state = toy.moved(state, np.clip(gain * way, -1, 1))
            reached = toy.near(state)
            total += DISCOUNT**step * (float(reached) - 1)
            step += 1
        returns.append(total)
    return float(np.mean(returns))


def test_the_fitted_values_are_what_playing_earns(found: OffPolicy):
    """Policies that go fast, slowly and away, none of which the data show by itself."""
    true = [played(gain) for gain in GAINS]
    assert true[0] > true[1] + 1.5
    assert true[1] > true[2] + 0.5
    for member, expected in zip(found.members, true, strict=True):
        low, high = member.value.interval
        assert low < member.value.value < high
        assert member.value.value == pytest.approx(expected, abs=0.8)
        assert member.disagreement < 1


def test_the_distance_is_to_the_actions_of_the_data(found: OffPolicy):
    held = found.held_out.held
    states, actions = held.observations[held.rows], held.actions[held.rows]
    for gain, member in zip(GAINS, found.members, strict=True):
        aims = np.clip(gain * (states[:, 2:] - states[:, :2]) / toy.STRIDE, -1, 1)
        expected = np.square(aims - actions).mean()
        assert member.action_distance.value == pytest.approx(expected, rel=1e-4)
        assert member.action_distance.interval[0] < expected < member.action_distance.interval[1]


def test_a_part_that_an_agent_lacks_is_none_with_the_reason(found: OffPolicy):
    for member in found.to_json()["members"]:
        assert member["flow_loss"] is None
        assert member["calibration"] is None
        assert member["reasons"] == {
            "flow_loss": "The behaviour of aim is no flow.",
            "calibration": "aim has no Q.",
        }


def test_what_is_held_out_is_said(found: OffPolicy):
    document = json.loads(json.dumps(found.to_json()))
    held = document["held_out"]
    assert held["episodes"] == 30
    assert held["source"].startswith("30 of 150 episodes")
    assert held["transitions"] + held["fitted_transitions"] == DATA.transitions
    apart = set(found.held_out.held.rows) & set(found.held_out.fit.rows)
    assert apart == set()
    assert document["fqe"]["steps"] == 2500
    assert [member["member"] for member in document["members"]] == [
        "seed0-gain1",
        "seed0-gain0.15",
        "seed0-gain-0.2",
    ]


def test_the_seed_fixes_everything_and_the_folder_stays_as_it_was(aiming: RunFolder):
    before = {path: path.stat().st_mtime_ns for path in aiming.path.rglob("*")}

    def members(seed: int) -> Any:
        options: dict[str, Any] = {"steps": 20, "settings": SMALL, "rows": 100}
        return off_policy(aiming, dataset=DATA, seed=seed, **options).to_json()["members"]

    assert members(3) == members(3)
    assert members(3) != members(4)
    assert {path: path.stat().st_mtime_ns for path in aiming.path.rglob("*")} == before


# Statistics of an agent's own ------------------------------------------------------------------


def counting(lengths: list[int], *, ended: bool) -> Dataset:
    """Episodes of known lengths whose observation is the number of steps left."""
    left = np.concatenate([np.arange(length, 0, -1) for length in lengths])
    return Dataset.from_arrays(
        observations=left[:, None],
        actions=np.full((len(left), 1), 0.1),
        rewards=-np.ones(len(left)),
        terminals=(left == 1) & ended,
        timeouts=left == 1,
        next_observations=left[:, None] - 1,
    )


def test_a_q_that_is_right_is_found_calibrated(tmp_path: Path):
    data = counting([3, 8, 5, 12, 9, 20], ended=True)
    folder = rested(Count(), data, tmp_path / "count", scale=(1.0, 2.0, -1.0))
    found = off_policy(folder, dataset=data, steps=2, share=0.5, settings=SMALL)
    right, steep, wrong = (member.calibration for member in found.members)
    assert right is not None
    assert steep is not None
    assert wrong is not None
    whole = found.held_out.held.transitions
    assert (right.rows, right.episodes) == (whole, 3)
    assert right.slope.value == pytest.approx(1, abs=1e-4)
    assert steep.slope.value == pytest.approx(0.5, abs=1e-4)
    assert right.mean_error.value == pytest.approx(0, abs=1e-4)
    returns, _ = discounted_returns(found.held_out.held, DISCOUNT)
    assert steep.mean_error.value == pytest.approx(returns.mean(), rel=1e-4)
    assert wrong.mean_error.value == pytest.approx(-2 * returns.mean(), rel=1e-4)
    for part, sign in ((right, 1), (steep, 1), (wrong, -1)):
        assert part.rank_correlation.value == pytest.approx(sign)
    # One action, 0.4 from the data's.
    assert found.members[0].action_distance.value == pytest.approx(0.16, rel=1e-4)
    assert set(found.members[0].reasons) == {"flow_loss"}


def test_a_q_of_rewards_in_units_of_its_own_is_held_against_such_returns(tmp_path: Path):
    data = counting([3, 8, 5, 12, 9, 20], ended=True)
    folder = rested(Paid(scale=3.0), data, tmp_path / "paid")
    (member,) = off_policy(folder, dataset=data, steps=2, settings=SMALL).members
    assert member.calibration is not None
    assert member.calibration.slope.value == pytest.approx(1, abs=1e-4)
    assert member.calibration.mean_error.value == pytest.approx(0, abs=1e-4)


def test_returns_that_a_cut_has_hidden_are_not_held_against_q(tmp_path: Path):
    data = counting([3, 40, 5, 40], ended=False)
    folder = rested(Count(), data, tmp_path / "count")
    found = off_policy(folder, dataset=data, steps=2, share=0.75, settings=SMALL, seed=1)
    calibration = found.members[0].calibration
    assert calibration is not None
    longest = int(np.unique(found.held_out.held.episodes, return_counts=True)[1].max())
    assert longest == 40
    # After 29 steps what follows weighs less than 5%.
    per_episode = 40 - 28
    assert calibration.rows == calibration.episodes * per_episode
    short = counting([3, 4, 5, 6], ended=False)
    folder = rested(Count(), short, tmp_path / "short")
    member = off_policy(folder, dataset=short, steps=2, settings=SMALL).members[0]
    assert member.calibration is None
    assert "No return is known" in member.reasons["calibration"]


@pytest.mark.slow
def test_a_flow_policy_has_every_part(joint: RunFolder, data: Dataset):
    found = off_policy(joint, dataset=data, steps=2, settings=SMALL, rows=50)
    prior = off_policy(joint, dataset=data, steps=2, settings=SMALL, rows=50, policy="prior")
    for member, base in zip(found.to_json()["members"], prior.to_json()["members"], strict=True):
        assert member["reasons"] == {}
        low, high = member["flow_loss"]["interval"]
        # Near its start the flow tells little of a velocity of mean square 1 + E a^2.
        assert 0.5 < low < member["flow_loss"]["value"] < high < 3
        assert base["flow_loss"] == member["flow_loss"]
        assert base["action_distance"] != member["action_distance"]
        assert member["calibration"]["rows"] > 0
        assert member["discount"] == pytest.approx(0.99)


def test_data_that_were_not_trained_on_are_looked_at_instead(aiming: RunFolder):
    other = toy.dataset(12, seed=5)
    found = off_policy(aiming, dataset=DATA, unseen=Own(other), steps=2, settings=SMALL)
    assert found.held_out.fit.fingerprint() == DATA.fingerprint()
    assert found.held_out.held.fingerprint() == other.fingerprint()
    assert found.held_out.to_json()["episodes"] == 12
    assert "nothing was trained" in found.held_out.source


def test_the_fit_has_other_keys_than_a_run_with_its_seed(
    aiming: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    """Else its critics would begin as the very ones that are judged."""
    used: list[Any] = []

    def fit(*_: Any, key: Any, **__: Any) -> Any:
        used.append(jax.random.key_data(key).tolist())
        raise DeFlowError("Enough.")

    monkeypatch.setattr("deflow.training.off_policy.fit_values", fit)
    with pytest.raises(DeFlowError, match="Enough"):
        off_policy(aiming, dataset=DATA, settings=SMALL, seed=3)
    own = [jax.random.key_data(Member(3).key(purpose)).tolist() for purpose in PURPOSES]
    assert used[0] not in own


# Refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"share": 1.0}, "share .--held-out. must be"),
        ({"share": 0.999}, "too few to hold"),
        ({"dataset": None}, "give them again"),
        ({"dataset": toy.dataset(6)}, "trained on other data"),
        ({"settings": FQE(tau=0.0)}, "tau must be"),
        ({"policy": "prior"}, "no base flow"),
        ({"unseen": Own(toy.dataset(150))}, "data it has not seen"),
        ({"unseen": Own(counting([3, 4], ended=True))}, "observations of width 1"),
        ({"unseen": Own(toy.dataset(6), Transforms(reward_scale=2.0))}, "scaled or normalised"),
        ({"best_of": 4}, "does not choose among several"),
    ],
    ids=[
        "steps",
        "share",
        "few",
        "own",
        "other",
        "fit",
        "prior",
        "same",
        "narrow",
        "units",
        "several",
    ],
)
def test_a_mistake_is_named(aiming: RunFolder, options: Any, said: str):
    with pytest.raises(DeFlowError, match=said):
        off_policy(aiming, **{"dataset": DATA, "settings": SMALL, **options})


# Returns ---------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(2, 7), st.booleans()), min_size=1, max_size=4),
    st.sampled_from([0.3, 0.5, 0.9]),
    st.integers(0, 2**31 - 1),
)
def test_returns_are_sums_to_the_end_of_the_episode(
    shape: list[tuple[int, bool]], discount: float, seed: int
):
    rng = np.random.default_rng(seed)
    count = sum(length for length, _ in shape)
    rewards, terminals = rng.normal(size=count).astype(np.float32), np.zeros(count, bool)
    ends = np.cumsum([length for length, _ in shape]) - 1
    terminals[ends] = [ended for _, ended in shape]
    # Next observations that no row holds must not look like the end of an episode.
    data = Dataset.from_arrays(
        observations=rng.normal(size=(count, 2)),
        actions=np.zeros((count, 1)),
        rewards=rewards,
        terminals=terminals,
        lengths=[length for length, _ in shape],
        next_observations=rng.normal(size=(count, 2)),
    )
    returns, known = discounted_returns(data, discount)
    start = 0
    for (_, ended), end in zip(shape, ends, strict=True):
        for row in range(start, end + 1):
            ahead = np.arange(end + 1 - row)
            expected = (discount**ahead * rewards[row : end + 1]).sum()
            assert returns[row] == pytest.approx(expected, rel=1e-4, abs=1e-5)
            assert known[row] == (ended or discount ** len(ahead) <= 0.05)
        start = end + 1


# Statistics ------------------------------------------------------------------------------------


def test_statistics_of_weights_are_those_of_repeated_rows():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 40).astype(float), rng.normal(size=40)
    weights = rng.integers(0, 4, 40)
    a, b = np.repeat(x, weights), np.repeat(y, weights)
    ones, w = np.ones(len(a)), weights.astype(float)
    for make in (lambda x, y: mean_of(y), slope_of, rank_correlation_of):
        assert make(x, y)(w) == pytest.approx(make(a, b)(ones))
    assert slope_of(a, b)(ones) == pytest.approx(np.polyfit(a, b, 1)[0])


def test_the_rank_correlation_is_spearmans():
    spearman = pytest.importorskip("scipy.stats").spearmanr
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 5, 60), rng.integers(0, 9, 60)
    assert rank_correlation_of(x, y)(np.ones(60)) == pytest.approx(spearman(x, y).statistic)
    assert rank_correlation_of(x, np.exp(x))(np.ones(60)) == pytest.approx(1)
    assert np.isnan(rank_correlation_of(x, np.zeros(60))(np.ones(60)))


def test_intervals_are_over_groups_not_rows():
    """Rows of a group are equal, so that a thousand of them are worth no more than one."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=50)
    few = bootstrap(mean_of(values), np.arange(50))
    many = bootstrap(mean_of(np.repeat(values, 100)), np.repeat(np.arange(50), 100))
    assert many.value == pytest.approx(few.value)
    assert many.interval == pytest.approx(few.interval)
    width = few.interval[1] - few.interval[0]
    assert width == pytest.approx(2 * 1.96 * values.std() / 50**0.5, rel=0.15)
    assert bootstrap(mean_of([1.0, 1.0]), [0, 1]).to_json() == {
        "value": 1.0,
        "interval": [1.0, 1.0],
    }
    nothing = bootstrap(slope_of([1.0, 1.0], [0.0, 2.0]), [0, 1])
    assert nothing.to_json() == {"value": None, "interval": [None, None]}
