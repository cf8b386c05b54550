"""A family of runs is its runs: the same losses, each with its own settings and draws."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests import toy

from deflow import DeFlow
from deflow.core.types import Spec
from deflow.data.dataset import Dataset
from deflow.training.device_data import DeviceData
from deflow.training.family import PURPOSES, Family, compute_rows, members_of, run_chunk

STEPS = 200
SPEC = Spec(toy.OBS, toy.ACT, (-1.0, 0.0), STEPS)
SCHEDULES = ("joint", "flow-first")

Phases = dict[str, dict[str, np.ndarray]]


def history(family: Family, agent: DeFlow, data: DeviceData, schedule: str) -> tuple[Phases, Any]:
    """Every metric of every step, [steps, members] by phase, and the last states."""
    states = family.init(SPEC)
    fields: dict[str, jax.Array] = {}
    phases: Phases = {}
    for index, phase in enumerate(agent.phases(SPEC, schedule)):
        own = {name: fields[name] for name in phase.fields}
        states, metrics = run_chunk(
            family, states, data, own, jnp.asarray(0), phase, index, phase.steps
        )
        phases[phase.name] = {name: np.asarray(values) for name, values in metrics.items()}
        for field in phase.leaves:
            fields[field.name] = compute_rows(family, states, data, field, block_size=128)
    return phases, states


@pytest.fixture(scope="module")
def on_device(data: Dataset) -> DeviceData:
    return DeviceData.from_dataset(data)


@pytest.mark.parametrize(
    "schedule", [SCHEDULES[0], pytest.param(SCHEDULES[1], marks=pytest.mark.slow)]
)
def test_a_family_of_four_has_the_losses_of_the_four_alone(on_device: DeviceData, schedule: str):
    """Every loss of the first 200 steps, to 1e-4 relative (floor 1e-6)."""
    agent = DeFlow(**toy.SMALL)
    members = members_of(range(4), {})
    together, _ = history(Family.build(agent, members), agent, on_device, schedule)
    worst = {}
    for index, member in enumerate(members):
        alone, _ = history(Family.build(agent, [member]), agent, on_device, schedule)
        for phase, metrics in alone.items():
            assert set(metrics) == set(together[phase])
            for name in metrics:
                if name.endswith("loss"):
                    ours, theirs = together[phase][name][:, index], metrics[name][:, 0]
                    assert ours.shape == theirs.shape == (STEPS,)
                    off = np.abs(ours - theirs) / np.maximum(1e-4 * np.abs(theirs), 1e-6)
                    worst[phase, name] = max(worst.get((phase, name), 0), off.max())
    expected = {"critic/loss", "actor/loss", "actor/q_loss", "actor/alpha_loss", "flow/loss"}
    assert {name for _, name in worst} == expected
    assert max(worst.values()) <= 1, worst


def test_swept_settings_reach_the_members_that_they_name(on_device: DeviceData):
    """Two seeds and two deltas: four members, each with its own, and nothing else."""
    agent = DeFlow(**toy.SMALL, discount=0.9)
    members = members_of((3, 5), {"delta": (0.001, 0.1)})
    assert [member.label for member in members] == [
        "seed3-delta0.001",
        "seed5-delta0.001",
        "seed3-delta0.1",
        "seed5-delta0.1",
    ]
    phases, states = history(Family.build(agent, members), agent, on_device, "joint")
    deltas = np.float32([0.001, 0.001, 0.1, 0.1])
    np.testing.assert_array_equal(phases["joint"]["actor/delta"], np.tile(deltas, (STEPS, 1)))
    critic = phases["joint"]["critic/loss"]
    # The setting does not enter the first step's losses; the seed does.
    assert critic[0, 0] == critic[0, 2]
    assert critic[0, 0] != critic[0, 1]
    alpha = np.asarray(states.log_alpha.model)
    assert np.all(alpha[:2] > alpha[2:])


def test_every_combination_of_seeds_and_grids_is_a_member():
    members = members_of((0, 1), {"delta": (0.1, 0.2, 0.3), "tau": (0.5, 0.6)})
    assert len({member.label for member in members}) == len(members) == 12


def test_purposes_and_seeds_have_keys_of_their_own():
    keys = [
        tuple(np.asarray(jax.random.key_data(member.key(purpose))))
        for member in members_of(range(5), {})
        for purpose in PURPOSES
    ]
    assert len(PURPOSES) == 4
    assert len(set(keys)) == 20


def test_batches_are_rows_of_the_data_with_what_follows_them(data: Dataset, on_device: DeviceData):
    rows = data.observations.shape[0]
    column = jnp.arange(rows, dtype=jnp.float32)[:, None]
    batch = on_device.sample(jax.random.key(0), 4096, {"number": column})
    row = np.asarray(batch.fields["number"])[:, 0].astype(int)
    assert set(row) == set(data.rows)
    np.testing.assert_array_equal(batch.observations, data.observations[row])
    np.testing.assert_array_equal(batch.actions, data.actions[row])
    np.testing.assert_array_equal(batch.rewards, data.rewards[row])
    np.testing.assert_array_equal(batch.masks, data.masks[row])
    following = dict(zip(data.rows, data.next_rows, strict=True))
    next_row = np.array([following[r] for r in row])
    np.testing.assert_array_equal(batch.fields["next_number"][:, 0], next_row)
    np.testing.assert_array_equal(batch.next_observations, data.observations[next_row])
    counts = np.bincount(row, minlength=rows)[data.rows]
    assert counts.max() < 4 * counts.mean()


def test_a_column_has_a_row_for_each_observation_and_repeats_itself(on_device: DeviceData):
    agent = DeFlow(**toy.SMALL, proposals=3)
    family = Family.build(agent, members_of((0, 1), {}))
    states = family.init(SPEC)
    (field,) = agent.phases(SPEC, "flow-first")[0].leaves
    seen: list[tuple[int, int]] = []
    column, again = (
        np.asarray(
            compute_rows(
                family,
                states,
                on_device,
                field,
                block_size=100,
                on_block=lambda *at: seen.append(at),
            )
        )
        for _ in range(2)
    )
    rows = on_device.observations.shape[0]
    assert column.shape == (2, rows, 3, toy.ACT)
    assert seen[-1] == (rows, rows)
    np.testing.assert_array_equal(column, again)
    assert np.abs(column).max() <= 1
    assert len(np.unique(column[:, :, :, 0])) > 0.5 * column[..., 0].size
