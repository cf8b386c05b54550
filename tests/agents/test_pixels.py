"""The seven systems that learn from frames: encoders move, actions stay in the box, resumes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests import seen

from deflow import DeFlowError, load_policy, train
from deflow.agents.registry import AGENTS, from_settings
from deflow.agents.shared.shifted import PAD, Seen, draw_offsets, shift, shifting
from deflow.core.agent import Agent, RowField, stack
from deflow.core.frames import STACK
from deflow.core.trees import named_leaves
from deflow.core.types import Batch, Clock, Spec
from deflow.data.dataset import Dataset
from deflow.nn.encoder import FEATURES
from deflow.training.config import TrainConfig
from deflow.training.device_data import DeviceData, device_columns
from deflow.training.evaluate import batched_act
from deflow.training.family import Family, compute_rows, members_of, run_chunk
from deflow.training.task import prepare

SEEING = ("bc", "iql", "rebrac", "ifql", "fbrac", "fql", "deflow")
SHAPE = (seen.SIDE, seen.SIDE, 3 * STACK)
SPEC = Spec(FEATURES, 2, (-6.0, 0.0), 4, SHAPE)


def agent_of(name: str) -> Agent:
    flowing = {"integration_steps": 2} if name in ("ifql", "fbrac", "fql", "deflow") else {}
    several = {"best_of": 3} if name == "ifql" else {}
    return from_settings(name, {**seen.SMALL, **flowing, **several})


def moved(before: Any, after: Any) -> dict[str, bool]:
    """Which parts of a state are no longer what they were."""
    ours, theirs = named_leaves(before), named_leaves(after)
    return {name: not np.array_equal(ours[name], theirs[name]) for name in ours}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return seen.dataset()


def test_those_that_say_so_see_frames_and_all_are_tested():
    assert {name for name, cls in AGENTS.items() if cls.sees_frames} == set(SEEING)


@pytest.mark.parametrize(
    "name",
    [name if name == "bc" else pytest.param(name, marks=pytest.mark.slow) for name in SEEING],
)
def test_an_agent_learns_from_frames_and_goes_on_as_if_it_had_not_stopped(name: str, data: Dataset):
    agent = agent_of(name)
    device = DeviceData.from_dataset(data)
    family = Family.build(agent, members_of((0,), {}))
    (phase,) = agent.phases(SPEC, "joint")
    fields = device_columns(data, agent, phase.fields)
    before = family.init(SPEC)
    run = partial(run_chunk, family, data=device, fields=fields, phase=phase, phase_index=0)
    whole, metrics = run(before, start=jnp.asarray(0), length=2)
    assert all(values.shape == (2, 1) for values in metrics.values())
    assert all(np.isfinite(values).all() for values in metrics.values())

    half, _ = run(before, start=jnp.asarray(0), length=1)
    resumed, _ = run(half, start=jnp.asarray(1), length=1)
    assert not any(moved(whole, resumed).values())

    encoders = {k: v for k, v in moved(before, whole).items() if "encoder" in k}
    networks = {k.split("encoder")[0] for k in encoders}
    assert len(networks) >= {"bc": 1, "fbrac": 3}.get(name, 4)
    for network in networks:
        kernels = [v for k, v in encoders.items() if k.startswith(network) and "weight" in k]
        assert all(kernels), network

    frames = np.asarray(device.observed(jnp.arange(3)))
    actions = batched_act(
        family.agents,
        whole,
        frames[None],
        0,
        np.arange(3)[None],
        np.zeros((1, 3), int),
        SPEC,
        "policy",
    )
    assert actions.shape == (1, 3, 2)
    assert np.isfinite(actions).all()
    assert np.abs(actions).max() <= 1


@pytest.mark.slow
def test_the_targets_encoder_follows_the_critics_as_the_rest_does(data: Dataset):
    agent = agent_of("fql")
    device = DeviceData.from_dataset(data)
    family = Family.build(agent, members_of((0,), {}))
    (phase,) = agent.phases(SPEC, "joint")
    states = [family.init(SPEC)]
    for step in range(2):
        after, _ = run_chunk(family, states[-1], device, {}, jnp.asarray(step), phase, 0, 1)
        states.append(after)
    kernel = lambda critic: np.asarray(critic.encoder.stacks[0].first.weight)  # noqa: E731
    target = [kernel(state.target_critic) for state in states]
    online = [kernel(state.critic.model) for state in states]
    # Targets average the parameters before the step, so the first step leaves them.
    np.testing.assert_allclose(target[1], target[0], rtol=1e-6)
    expected = 0.995 * target[1] + 0.005 * online[1]
    np.testing.assert_allclose(target[2], expected, rtol=1e-6, atol=1e-9)
    assert np.abs(target[2] - target[1]).max() > 1e-7


@pytest.mark.slow
def test_a_family_is_its_members(data: Dataset):
    device, agent = DeviceData.from_dataset(data), agent_of("bc")
    (phase,) = agent.phases(SPEC, "joint")
    together = Family.build(agent, members_of((0, 1), {}))
    ours, metrics = run_chunk(
        together, together.init(SPEC), device, {}, jnp.asarray(0), phase, 0, 2
    )
    assert metrics["actor/loss"].shape == (2, 2)
    finals = []
    for seed in (0, 1):
        alone = Family.build(agent, members_of((seed,), {}))
        theirs, _ = run_chunk(alone, alone.init(SPEC), device, {}, jnp.asarray(0), phase, 0, 2)
        finals.append(jax.tree.map(lambda leaf: leaf[0], theirs))
    assert not any(moved(ours, stack(finals)).values())


def test_a_row_field_of_frames_is_that_of_their_stacks(data: Dataset):
    """Whatever the blocks: the noise here is none."""
    device = DeviceData.from_dataset(data)
    family = Family.build(agent_of("bc"), members_of((0, 1), {}))
    field = RowField(
        "sums",
        lambda agent, key, rows: jnp.zeros(rows),
        lambda agent, state, observations, noise: observations.astype(jnp.float32).sum((1, 2, 3)),
    )
    states = family.init(SPEC)
    rows = len(data.observations)
    found = compute_rows(family, states, device, field, block_size=16)
    expected = np.asarray(device.observed(jnp.arange(rows))).astype(np.float32).sum((1, 2, 3))
    np.testing.assert_array_equal(found, np.stack([expected] * 2))


# The shift --------------------------------------------------------------------------------------


def test_a_shift_is_a_crop_of_the_frame_widened_by_its_edges():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (20, 7, 5, 9), np.uint8)
    offsets = rng.integers(0, 2 * PAD + 1, (20, 2))
    found = np.asarray(shift(jnp.asarray(frames), jnp.asarray(offsets)))
    assert found.dtype == np.uint8
    for frame, (down, right), ours in zip(frames, offsets, found, strict=True):
        for i, j in np.ndindex(7, 5):
            row, col = (np.clip(i + down - PAD, 0, 6), np.clip(j + right - PAD, 0, 4))
            np.testing.assert_array_equal(ours[i, j], frame[row, col])


def test_half_of_the_batches_are_moved_each_row_its_own_way():
    keys = jax.random.split(jax.random.key(0), 400)
    offsets = np.asarray(jax.vmap(lambda key: draw_offsets(key, 32))(keys))
    still = (offsets == PAD).all((1, 2))
    assert 0.42 < still.mean() < 0.58  # Four deviations of a fair coin.
    tossed = offsets[~still]
    assert tossed.min() == 0
    assert tossed.max() == 2 * PAD
    counts = np.bincount(tossed.ravel(), minlength=2 * PAD + 1) / tossed.size
    np.testing.assert_allclose(counts, 1 / (2 * PAD + 1), atol=0.02)
    assert all(len(np.unique(batch, axis=0)) > 8 for batch in tossed)


def test_an_update_shifts_both_frames_alike_by_its_noise():
    agent = agent_of("bc")
    (phase,) = agent.phases(SPEC, "joint")
    noise = phase.draw(agent, jax.random.key(2))
    assert isinstance(noise, Seen)
    assert noise.offsets.shape == (agent.batch_size, 2)  # type: ignore[attr-defined]
    rng = np.random.default_rng(1)
    frames = [jnp.asarray(rng.integers(0, 256, (8, *SHAPE), np.uint8)) for _ in range(2)]
    batch = Batch(frames[0], jnp.zeros((8, 2)), jnp.zeros(8), jnp.ones(8), frames[1])
    got: list[Batch] = []

    def update(agent: Any, state: Any, batch: Batch, noise: Any, clock: Clock) -> Any:
        got.append(batch)
        return state, {}

    bare = replace(phase, update=update, draw=lambda agent, key: ())
    moved_by = noise._replace(offsets=jnp.asarray(rng.integers(0, 7, (8, 2))))
    shifting(bare).update(agent, (), batch, moved_by, Clock(jnp.asarray(0)))
    for theirs, ours in zip(frames, (got[0].observations, got[0].next_observations), strict=True):
        np.testing.assert_array_equal(ours, shift(theirs, moved_by.offsets))
        assert (np.asarray(ours) != np.asarray(theirs)).any()


# Whole runs -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_from_frames_is_judged_and_kept(data: Dataset, tmp_path: Any):
    folder = train(
        "seen",
        agent_of("deflow"),
        dataset=data,
        schedule="flow-first",
        env=seen.ENV,
        steps=2,
        chunk=2,
        log_every=2,
        checkpoint_every=2,
        eval_every=2,
        eval_episodes=2,
        workers=1,
        run_dir=tmp_path / "run",
    )
    spec = Spec.from_json(folder.read_json("spec.json"))
    assert spec.frame == SHAPE
    assert spec.observation_dim == FEATURES
    (evaluation,) = folder.read_lines(folder.evaluations)
    assert [episode["length"] for episode in evaluation["episodes"]] == [seen.LIMIT] * 2
    policy = load_policy(folder.path)
    assert policy(np.zeros(SHAPE, np.uint8)).shape == (2,)
    assert policy(np.zeros((3, *SHAPE), np.uint8)).shape == (3, 2)
    for wrong in (np.zeros(SHAPE), np.zeros((5, 5, 9), np.uint8), np.zeros(4, np.uint8)):
        with pytest.raises(DeFlowError, match="takes observations of 8x8x9 bytes"):
            policy(wrong)


def test_older_specs_are_read():
    old = {"observation_dim": 4, "action_dim": 2, "reward_range": [-1, 0], "total_steps": 10}
    assert Spec.from_json(old) == Spec(4, 2, (-1, 0), 10)


@pytest.mark.parametrize("name", sorted(set(AGENTS) - set(SEEING) - {"sac"}))
def test_the_others_say_that_they_cannot(name: str, data: Dataset):
    config = TrainConfig(task="seen", agent=from_settings(name, {}))
    with pytest.raises(DeFlowError, match=f"from frames, which {name} cannot"):
        prepare(config, data)


def test_frames_of_another_environment_are_refused(data: Dataset):
    config = TrainConfig(task="seen", agent=agent_of("bc"), env="tests.toy:make")
    with pytest.raises(DeFlowError, match=r"observations of width 8x8x3 .* has 4 and 2"):
        prepare(config, data)
