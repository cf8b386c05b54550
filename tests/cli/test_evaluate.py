"""Choosing among several actions, and the base flow, when a run is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
from tests import toy

from deflow import train
from deflow.agents.bc import BC
from deflow.training.judge import choosing
from deflow.training.policy import load_family
from deflow.training.run_folder import RunFolder

Printed = Callable[..., Any]


def test_the_best_of_several_is_taken_whatever_the_run_was_configured_with(
    finished: Path, printed: Printed
):
    words = ("evaluate", finished, "--episodes", 3, "--workers", 1, "--json")
    plain, one, four = printed(*words), *(printed(*words, "--best-of", n) for n in (1, 4))
    assert (plain["best_of"], one["best_of"], four["best_of"]) == (None, 1, 4)
    assert one["members"] == plain["members"]
    assert four["members"] != plain["members"]
    base = printed(*words, "--policy", "prior", "--best-of", 4)
    assert (base["policy"], base["best_of"]) == ("prior", 4)


def test_more_candidates_have_no_lower_values(finished: Path):
    import jax

    _, family, states, spec, _ = load_family(RunFolder.open(finished))
    observations = jnp.asarray(toy.dataset().observations[:32])
    state = jax.tree.map(lambda leaf: leaf[0], states)

    def values(best_of: int) -> list[float]:
        agent = jax.tree.map(lambda leaf: leaf[0], choosing(family.agents, best_of))
        keys = jax.random.split(jax.random.key(0), 32)
        noise = jax.vmap(lambda key: agent.draw_act(key, spec))(keys)
        kinds = agent.act(state, observations, noise), agent.propose(state, observations, noise)
        return [float(agent.value(state, observations, actions).mean()) for actions in kinds]

    (policy, base), (one_policy, one_base) = values(16), values(1)
    assert policy > one_policy
    assert base > one_base


@pytest.fixture(scope="module")
def bc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an agent that has neither candidates nor a base flow."""
    path = tmp_path_factory.mktemp("run") / "bc"
    agent, options = BC(hidden=(8, 8), batch_size=8), {"steps": 10, "chunk": 10, "env": toy.ENV}
    train("toy", agent, dataset=toy.dataset(), run_dir=path, eval_episodes=0, **options)
    return path


def test_what_an_agent_cannot_do_is_said(bc: Path, finished: Path, refused: Callable[..., str]):
    said = refused("evaluate", bc, "--episodes", 1, "--best-of", 4)
    assert "bc does not choose among several actions" in said
    assert "no base flow" in refused("evaluate", bc, "--episodes", 1, "--policy", "prior")
    assert "best_of must be" in refused("evaluate", finished, "--episodes", 1, "--best-of", 0)
