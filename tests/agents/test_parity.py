"""The official implementation's numbers, and mutations that must not pass for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array

import deflow.agents.deflow as module
from deflow.agents.deflow import DeFlow
from deflow.agents.shared import critical, flowing
from deflow.nn.learner import polyak
from deflow.parity import Comparison, check

Mutation = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def recorded(shared: Path) -> Path:
    return shared / "data" / "parity" / "deflow_mean.npz"


def summary(found: list[Comparison]) -> str:
    worst = max(found, key=lambda comparison: comparison.error)
    failed = sum(not comparison.passes for comparison in found)
    return f"{failed} of {len(found)} fail; the worst is {worst.name}, {worst.error:.3g} limits off"


@pytest.fixture(scope="module")
def found(recorded: Path) -> list[Comparison]:
    return check(recorded)


def test_every_recorded_number_is_repeated(found: list[Comparison]):
    failed = [f"{c.name}: {c.error:.3g}" for c in found if not c.passes]
    print(summary(found))  # noqa: T201
    assert not failed, "\n".join(failed)


def test_the_comparison_covers_losses_gradients_parameters_and_actions(found: list[Comparison]):
    names = [comparison.name for comparison in found]
    assert len(names) == len(set(names))
    for update in range(3):
        for part in ("loss", "critic/critic_loss", "actor/alpha_loss", "actor/distill_loss"):
            assert f"update {update}: {part}" in names
        assert sum(name.startswith(f"update {update}: gradient of ") for name in names) > 20
    assert {"actions", "flow_actions", "final modules_log_alpha/value"} <= set(names)
    assert any(name.startswith("final modules_target_critic") for name in names)


# Mutations -------------------------------------------------------------------------------------


def double_the_critics_loss(patch: pytest.MonkeyPatch) -> None:
    right = critical.td_loss

    def doubled(*arguments):
        loss, metrics = right(*arguments)
        return 2 * loss, {**metrics, "critic/loss": 2 * loss}

    patch.setattr(critical, "td_loss", doubled)


def average_the_parameters_after_the_step(patch: pytest.MonkeyPatch) -> None:
    right = DeFlow.stepped

    def without_lag(self: DeFlow, state: Any, *rest: Any) -> Any:
        new = right(self, state, *rest)
        target = polyak(state.target_critic, new.critic.model, self.tau)
        return eqx.tree_at(lambda s: s.target_critic, new, target)

    patch.setattr(DeFlow, "stepped", without_lag)


def take_the_exact_gelu(patch: pytest.MonkeyPatch) -> None:
    right = jax.nn.gelu
    patch.setattr(jax.nn, "gelu", lambda x, approximate=True: right(x, approximate=False))


def flip_the_multipliers_sign(patch: pytest.MonkeyPatch) -> None:
    right = module.multiplier_loss
    patch.setattr(module, "multiplier_loss", lambda *arguments: -right(*arguments))


def take_the_linear_multiplier(patch: pytest.MonkeyPatch) -> None:
    right = module.multiplier_loss

    def linear(log_alpha: Array, squared: Array, delta: float, form: str) -> Array:
        return right(log_alpha, squared, delta, "linear")

    patch.setattr(module, "multiplier_loss", linear)


def leave_the_proposals_unclipped(patch: pytest.MonkeyPatch) -> None:
    def free(field: Any, observations: Array, x0: Array, steps: int, solver: str) -> Array:
        x = x0
        for i in range(steps):
            x = x + field(observations, x, jnp.full((*x.shape[:-1], 1), i / steps)) / steps
        return x

    patch.setattr(flowing, "integrate", free)


def leave_the_refined_action_unclipped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(module, "refine", lambda proposals, residuals: proposals + residuals)


@pytest.mark.parametrize(
    "mutate",
    [
        double_the_critics_loss,
        average_the_parameters_after_the_step,
        take_the_exact_gelu,
        flip_the_multipliers_sign,
        leave_the_proposals_unclipped,
        *(
            pytest.param(mutation, marks=pytest.mark.slow)
            for mutation in (take_the_linear_multiplier, leave_the_refined_action_unclipped)
        ),
    ],
)
def test_a_single_mutation_is_noticed(
    recorded: Path, mutate: Mutation, monkeypatch: pytest.MonkeyPatch
):
    mutate(monkeypatch)
    found = check(recorded)
    print(f"{mutate.__name__}: {summary(found)}")  # noqa: T201
    assert any(not comparison.passes for comparison in found)
    assert max(comparison.error for comparison in found) > 2
