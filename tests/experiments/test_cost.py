"""What a step costs, against the hand count of the benchmark."""

from __future__ import annotations

import pytest
from benchmarks.train_step import gigaflops, step_products

from deflow.agents.deflow import DeFlow
from deflow.agents.rebrac import ReBRAC
from deflow.agents.sac import SAC
from deflow.core.types import Spec
from deflow.experiments.cost import mean_gflop, phase_costs
from deflow.training.config import TrainConfig

SPEC = Spec(37, 5, (-1.0, 0.0), 100)


@pytest.mark.parametrize(
    ("schedule", "gflop"), [("joint", [16.133]), ("flow-first", [1.234, 6.594])]
)
def test_a_step_of_deflow_at_the_published_size(schedule: str, gflop: list[float]):
    costs = phase_costs(TrainConfig("any", DeFlow(prior_steps=50), schedule=schedule), SPEC)
    assert [cost["gflop_per_step"] for cost in costs] == pytest.approx(gflop, abs=5e-4)
    assert costs[-1]["gflop_per_step"] == gigaflops(step_products([512] * 4, schedule))
    mean = gflop[0] if schedule == "joint" else (50 * gflop[0] + 100 * gflop[1]) / 150
    assert mean_gflop(costs) == pytest.approx(mean, abs=5e-4)


def test_steps_online_count_by_their_updates():
    settings = {"hidden": (8, 8), "batch_size": 4}
    config = TrainConfig(
        "any",
        DeFlow(prior_steps=50, **settings),
        schedule="flow-first",
        online_steps=10,
        updates_per_step=30,
    )
    costs = phase_costs(config, SPEC)
    assert [cost["updates"] for cost in costs] == [50, 100, 300]
    prior, joint, online = (cost["gflop_per_step"] for cost in costs)
    mean = (50 * prior + 100 * joint + 300 * online) / 450
    assert mean_gflop(costs) == pytest.approx(mean)
    alone = TrainConfig("any", SAC(random_steps=4, **settings), online_steps=10)
    assert [cost["updates"] for cost in phase_costs(alone, SPEC)] == [6]


def test_integration_and_its_backward_pass_cost_as_often_as_the_flow_steps():
    def cost(steps: int) -> float:
        (joint,) = phase_costs(TrainConfig("any", DeFlow(integration_steps=steps)), SPEC)
        return float(joint["gflop_per_step"])

    assert cost(7) - cost(3) == pytest.approx(4 * (cost(2) - cost(1)))


def test_columns_of_the_data_are_known_without_data():
    (joint,) = phase_costs(TrainConfig("any", ReBRAC(hidden=(8, 8), batch_size=4)), SPEC)
    assert joint["steps"] == 100
    assert joint["gflop_per_step"] > 0
