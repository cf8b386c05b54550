"""DeFlow's official code with options that no file at hand has: alpha kept, the flow left alone.

The updates are written out here after the official code, its losses, Adam and targets, on networks
of ours; so that what is tested is what the reader makes of such a file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.agents.online import begun, observed

from deflow.core.device import ONCE
from deflow.core.types import Batch, Spec
from deflow.official import OFFICIAL
from deflow.parity import by_official_name, check

SPEC, SIZE, UPDATES = Spec(4, 3, (-1.0, 0.0), 10), 8, 3
CONFIG: dict[str, Any] = {
    "agent_name": "deflow",
    "state_dim": 4,
    "action_dim": 3,
    "discount": 0.99,
    "lr": 3e-4,
    "tau": 0.005,
    "batch_size": SIZE,
    "value_hidden_dims": [8, 8],
    "actor_hidden_dims": [8],
    "layer_norm": True,
    "actor_layer_norm": False,
    "q_agg": "min",
    "normalize_q_loss": True,
    "flow_steps": 2,
    "target_divergence": 0.001,
    "use_lagrange": True,
    "alpha": 10.0,
    "fix_bc_flow_online": False,
    "offline_steps": 1_000_000,
}


def flow_actions(flow: Any, observations: Any, noise: Any, steps: int) -> Any:
    actions = noise
    for i in range(steps):
        time = jnp.full((len(actions), 1), i / steps)
        actions = actions + flow(observations, actions, time) / steps
    return jax.lax.stop_gradient(jnp.clip(actions, -1, 1))


def total_loss(
    models: Any, target_critic: Any, batch: Batch, noise: Any, config: Any, fixed: bool
) -> Any:
    flow, refinement, steps = models["flow"], models["refinement"], config["flow_steps"]

    def policy(observations: Any, noise: Any) -> tuple[Any, Any]:
        base = flow_actions(flow, observations, noise, steps)
        residual = refinement(observations, base)
        return jnp.clip(base + residual, -1, 1), residual

    next_actions, _ = policy(batch.next_observations, noise.target)
    next_q = target_critic(batch.next_observations, next_actions).min(0)
    y = jax.lax.stop_gradient(batch.rewards + config["discount"] * batch.masks * next_q)
    q = models["critic"](batch.observations, batch.actions)
    critic_loss = jnp.square(q - y).mean()

    x1, x0, t = batch.actions, noise.flow.x0, noise.flow.t
    velocity = flow(batch.observations, (1 - t) * x0 + t * x1, t)
    flow_loss = jnp.zeros(()) if fixed else jnp.mean((velocity - (x1 - x0)) ** 2)

    actions, residual = policy(batch.observations, noise.actor)
    squared = jnp.mean(residual**2)
    still = jax.tree.map(jax.lax.stop_gradient, models["critic"])  # Their critic takes no gradient.
    value = still(batch.observations, actions).mean(0)
    q_loss = -value.mean() / jax.lax.stop_gradient(jnp.abs(value).mean())
    if config["use_lagrange"]:
        log_alpha = models["log_alpha"]
        alpha = jnp.exp(log_alpha)
        alpha_loss = -log_alpha * (jax.lax.stop_gradient(squared) - config["target_divergence"])
        distill_loss = jax.lax.stop_gradient(alpha) * squared
    else:
        alpha, alpha_loss = jnp.asarray(config["alpha"]), jnp.zeros(())
        distill_loss = config["alpha"] * (config["alpha"] * squared)
    actor_loss = flow_loss + distill_loss + q_loss + alpha_loss
    return critic_loss + actor_loss, {
        "critic/critic_loss": critic_loss,
        "actor/actor_loss": actor_loss,
        "actor/bc_flow_loss": flow_loss,
        "actor/distill_loss": squared,
        "actor/q_loss": q_loss,
        "actor/alpha_loss": alpha_loss,
        "actor/alpha_value": alpha,
    }


def record(file: Path, config: dict[str, Any]) -> None:
    official = OFFICIAL["deflow"]
    agent, batch = official.agent(config), observed(SPEC, SIZE)
    state = begun(agent, SPEC)
    parts = ["critic", "flow", "refinement", *(["log_alpha"] if config["use_lagrange"] else [])]
    models = {part: getattr(state, part).model for part in parts}
    target_critic = state.target_critic
    data: dict[str, Any] = {"config": json.dumps(config)}

    def keep(prefix: str, tree: Any) -> None:
        named = by_official_name(tree, official)
        data.update({f"{prefix}/{name}": leaf for name, leaf in named.items()})

    keep("params0", {**models, "target_critic": target_critic})
    adam = optax.adam(config["lr"])
    moments = adam.init(eqx.filter(models, eqx.is_array))
    learn = eqx.filter_jit(
        eqx.filter_value_and_grad(total_loss, has_aux=True), compiler_options=ONCE
    )
    names = ("observations", "actions", "rewards", "masks", "next_observations")
    data["act/observations"], last = batch.observations, None
    for k in range(UPDATES):
        noise = agent.draw_joint(jax.random.key(k), SPEC)
        fixed = config["fix_bc_flow_online"] and 1 + k > config["offline_steps"]
        data |= {f"batch{k}/{name}": getattr(batch, name) for name in names}
        data |= {f"noise{k}/flow_x0": noise.flow.x0, f"noise{k}/flow_t": noise.flow.t}
        data |= {f"noise{k}/target_noise": noise.target, f"noise{k}/actor_noise": noise.actor}
        (data[f"loss{k}"], info), grads = learn(models, target_critic, batch, noise, config, fixed)
        data |= {f"info{k}/{name}": value for name, value in info.items()}
        keep(f"grads{k}", grads)
        # Their targets average the parameters that the step began from.
        target_critic = jax.tree.map(
            lambda p, tp: config["tau"] * p + (1 - config["tau"]) * tp if eqx.is_array(p) else p,
            models["critic"],
            target_critic,
        )
        change, moments = adam.update(grads, moments)
        models, last = eqx.apply_updates(models, change), noise.actor
    keep(f"params{UPDATES}", {**models, "target_critic": target_critic})
    base = flow_actions(models["flow"], batch.observations, last, config["flow_steps"])
    residual = models["refinement"](batch.observations, base)
    data |= {"act/noise": last, "act/flow_actions": base}
    data["act/actions"] = jnp.clip(base + residual, -1, 1)
    np.savez(file, allow_pickle=False, **data)


OPTIONS: dict[str, dict[str, Any]] = {
    "kept": {"use_lagrange": False, "alpha": 0.3},
    "left": {"fix_bc_flow_online": True, "offline_steps": 2},
}


@pytest.fixture(scope="module", params=["kept", pytest.param("left", marks=pytest.mark.slow)])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("parity") / f"{request.param}.npz"
    record(file, {**CONFIG, **OPTIONS[request.param]})
    return file


def test_every_recorded_number_is_repeated(recorded: Path):
    found = check(recorded)
    names = {comparison.name for comparison in found}
    assert {"actions", "update 2: actor/alpha_value", "update 2: actor/bc_flow_loss"} <= names
    assert ("final modules_log_alpha/value" in names) is (recorded.stem == "left")
    assert not [f"{c.name}: {c.error:.3g}" for c in found if not c.passes]


def test_numbers_under_the_name_of_another_setting_are_noticed(recorded: Path, tmp_path: Path):
    other = {"kept": {"alpha": 0.3**0.5}, "left": {"offline_steps": 3}}[recorded.stem]
    with np.load(recorded, allow_pickle=False) as opened:
        data = dict(opened)
    data["config"] = np.asarray(json.dumps({**json.loads(str(data["config"])), **other}))
    np.savez(tmp_path / "file.npz", allow_pickle=False, **data)
    assert max(comparison.error for comparison in check(tmp_path / "file.npz")) > 2
