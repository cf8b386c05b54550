"""Every official agent's file is read and repeated; IFQL's, of which none is at hand, from ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.compiled import once

from deflow import parity
from deflow.agents.ifql import IFQL
from deflow.agents.shared import critical
from deflow.core.errors import DeFlowError
from deflow.core.types import Batch, Clock, Spec
from deflow.extraction import distillation, weighting
from deflow.official import OFFICIAL
from deflow.parity import by_official_name, check, read_update


@pytest.mark.parametrize(("name", "least"), [("fql", 250), ("iql", 290), ("rebrac", 300)])
def test_every_recorded_number_is_repeated(shared: Path, name: str, least: int):
    found = check(shared / "data" / "parity" / f"{name}.npz")
    assert len(found) >= least
    assert not [f"{c.name}: {c.error:.3g}" for c in found if not c.passes]


@pytest.mark.parametrize("name", ["fql", "iql", "rebrac"])
def test_a_mutation_is_noticed(shared: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    """The value's sign in FQL, the ceiling of IQL's weights, the size of ReBRAC's targets."""
    if name == "fql":
        right = distillation.value_loss
        monkeypatch.setattr(distillation, "value_loss", lambda q, **how: -right(q, **how))
    elif name == "iql":
        monkeypatch.setattr(weighting, "CEILING", 10.0)
    else:
        target = critical.Critical.target_part
        monkeypatch.setattr(
            critical.Critical,
            "target_part",
            lambda self, model: jax.tree.map(lambda leaf: 1.01 * leaf, target(self, model)),
        )
    found = check(shared / "data" / "parity" / f"{name}.npz")
    assert max(comparison.error for comparison in found) > 2


def record(file: Path, config: dict[str, Any], agent: IFQL) -> None:
    """Two updates of our own IFQL in the official format."""
    spec, official = Spec(4, 3, (-1.0, 0.0), 10), OFFICIAL["ifql"]
    state = once(agent.init, static_argnums=1)(jax.random.key(0), spec)
    data: dict[str, Any] = {"config": json.dumps(config)}
    update = read_update(agent, spec, online=False)

    def keep(prefix: str, tree: Any) -> None:
        for name, leaf in by_official_name(tree, official).items():
            data[f"{prefix}/{name}"] = leaf

    keep("params0", state)
    for k in range(2):
        keys = jax.random.split(jax.random.key(k + 1), 5)
        rows = {
            "observations": jax.random.normal(keys[0], (8, 4)),
            "actions": jax.random.uniform(keys[1], (8, 3), minval=-1),
            "rewards": -jnp.ones(8),
            "masks": jnp.ones(8),
            "next_observations": jax.random.normal(keys[2], (8, 4)),
        }
        noise = agent.draw_flow(keys[3], spec)
        data |= {f"batch{k}/{name}": column for name, column in rows.items()}
        data |= {f"noise{k}/flow_x0": noise.x0, f"noise{k}/flow_t": noise.t}
        batch, clock = Batch(**rows), Clock(jnp.asarray(k))
        grads, metrics, state = update(state, batch, noise, clock)
        keep(f"grads{k}", grads)
        data[f"loss{k}"] = sum(metrics[name] for name in official.losses)
        data |= {f"info{k}/{theirs}": metrics[own] for theirs, own in official.metrics.items()}
    keep("params2", state)
    data["act/observations"] = jax.random.normal(keys[4], (5, 4))
    data["act/noise"] = jax.random.normal(keys[4], (5, agent.best_of, 3))
    data["act/actions"] = agent.act(state, data["act/observations"], data["act/noise"])
    each = data["act/observations"][:, None]
    data["act/flow_actions"] = agent.base(state, each, data["act/noise"])
    np.savez(file, allow_pickle=False, **data)


def test_a_file_of_ifql_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = {
        "agent_name": "ifql",
        "state_dim": 4,
        "action_dim": 3,
        "discount": 0.99,
        "lr": 3e-4,
        "tau": 0.005,
        "batch_size": 8,
        "value_hidden_dims": [8, 8],
        "actor_hidden_dims": [8],
        "layer_norm": True,
        "actor_layer_norm": False,
        "expectile": 0.8,
        "num_samples": 4,
        "flow_steps": 3,
    }
    file = tmp_path / "ifql.npz"
    record(file, config, OFFICIAL["ifql"].agent(config))
    updates, precisions = parity.read_update, []

    def noted(*about: Any) -> Any:
        precisions.append(jax.config.jax_default_matmul_precision)
        return updates(*about)

    monkeypatch.setattr(parity, "read_update", noted)
    found = check(file)
    assert precisions == ["highest"]
    assert {
        "actions",
        "flow_actions",
        "update 1: value/value_loss",
        "update 0: actor/actor_loss",
    } <= {comparison.name for comparison in found}
    assert all(comparison.passes for comparison in found)


def test_what_is_no_parity_file_is_named(tmp_path: Path):
    file = tmp_path / "it.npz"
    np.savez(file, allow_pickle=False, observations=np.zeros(3))
    with pytest.raises(DeFlowError, match=r"it\.npz is no parity file: it lacks config"):
        check(file)
    np.savez(file, allow_pickle=False, config=json.dumps({"agent_name": "fql", "lr": 3e-4}))
    with pytest.raises(DeFlowError, match=r"it\.npz lacks 'discount'"):
        check(file)


def test_a_file_of_an_unknown_agent_is_refused(tmp_path: Path):
    file = tmp_path / "sac.npz"
    np.savez(file, allow_pickle=False, config=json.dumps({"agent_name": "sac"}))
    with pytest.raises(DeFlowError, match="only deflow, fql, iql, ifql, rebrac are known"):
        check(file)
