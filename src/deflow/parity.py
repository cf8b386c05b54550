"""Numbers of the official implementations, held against ours.

A parity file records a few updates of an official agent at a small size: its parameters before and
after, batches, the draws of each update, losses, gradients, metrics, and actions. `check` repeats
them here, from the recorded draws, and reports every quantity's error beside its limit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deflow.agents.deflow import DeFlow, DeFlowState, JointNoise
from deflow.behavior.flow import FlowNoise
from deflow.core.errors import DeFlowError
from deflow.core.trees import named_leaves, path_name
from deflow.core.types import Batch, Clock, Metrics, Spec

RELATIVE, FLOOR = 1e-4, 1e-6
"""Losses, gradients and metrics agree to this share of the reference, with this absolute floor."""
MOVEMENT = 1e-3
"""Final parameters, leaf by leaf: ||p - reference|| over ||reference - start||."""
ACTIONS = 1e-5
"""Actions, in absolute terms."""

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Comparison:
    """One quantity: how far it is off, in units of what is allowed (1 is the limit)."""

    name: str
    error: float

    @property
    def passes(self) -> bool:
        return self.error <= 1


def check(path: str | Path) -> list[Comparison]:
    """Every loss, gradient, metric, final parameter and action of a DeFlow parity file.

    Raises `DeFlowError` where the file is of an agent that is not known here.
    """
    with np.load(path, allow_pickle=False) as file:
        data = {name: file[name] for name in file.files}
    config = json.loads(str(data["config"]))
    if config["agent_name"] != "deflow":
        raise DeFlowError(f"{path} is a file of {config['agent_name']}, but only deflow is known.")
    agent = agent_of(config)
    spec = Spec(config["state_dim"], config["action_dim"], (-1.0, 0.0), config["offline_steps"])
    template = agent.init(jax.random.key(0), spec)
    state = read_state(template, data, "params0")
    found: list[Comparison] = []
    updates = sum(name.startswith("loss") for name in data)
    for k in range(updates):
        batch = read_batch(data, k)
        noise = read_noise(data, k)
        losses, gradients = losses_and_gradients(agent, state, batch, noise)
        found += compare_metrics(losses, data, k) + compare_gradients(gradients, data, k)
        state, _ = agent.update_joint(state, batch, noise, Clock(jnp.asarray(k)))
    found += compare_parameters(state, data, f"params{updates}")
    return found + compare_actions(agent, state, data)


def agent_of(config: Mapping[str, Any]) -> DeFlow:
    """The settings of a recorded run in our names."""
    return DeFlow(
        delta=config["target_divergence"],
        discount=config["discount"],
        learning_rate=config["lr"],
        tau=config["tau"],
        fixed_alpha=config["alpha"],
        multiplier="lagrangian" if config["use_lagrange"] else "fixed",
        legacy_alpha_squared=not config["use_lagrange"],
        target_aggregation=config["q_agg"],
        normalize_q=config["normalize_q_loss"],
        batch_size=config["batch_size"],
        integration_steps=config["flow_steps"],
        hidden=tuple(config["value_hidden_dims"]),
        actor_hidden=tuple(config["actor_hidden_dims"]),
        critic_layer_norm=config["layer_norm"],
        actor_layer_norm=config["actor_layer_norm"],
    )


# The official tree's names ---------------------------------------------------------------------

MODULES = {
    "flow": "modules_actor_bc_flow/mlp",
    "critic": "modules_critic/value_net",
    "target_critic": "modules_target_critic/value_net",
    "refinement": "modules_refine_onestep_flow/mlp",
}


def official_name(name: str) -> str | None:
    """`critic.model.nets.members.layers.0.weight` as the official tree has it; None for moments."""
    if name in ("log_alpha", "log_alpha.model"):
        return "modules_log_alpha/value"
    found = re.fullmatch(
        r"(\w+)(?:\.model)?\.nets?(?:\.members)?\.(layers|norms)\.(\d+)\.(\w+)", name
    )
    if found is None:
        return None
    module, kind, index, leaf = found.groups()
    layer = "Dense" if kind == "layers" else "LayerNorm"
    return f"{MODULES[module]}/{layer}_{index}/{leaf.replace('weight', 'kernel')}"


def by_official_name(tree: Any) -> dict[str, Any]:
    """The parameters of a state, or of a mapping of gradients, by their official names."""
    named = {official_name(name): leaf for name, leaf in named_leaves(tree).items()}
    return {name: leaf for name, leaf in named.items() if name is not None}


def read_state(template: DeFlowState, data: Arrays, prefix: str) -> DeFlowState:
    """A state that holds the recorded parameters, its optimisers at rest."""

    def recorded(path: Any, leaf: Any) -> Any:
        name = official_name(path_name(path))
        return leaf if name is None else jnp.asarray(data[f"{prefix}/{name}"]).reshape(leaf.shape)

    state: DeFlowState = jax.tree_util.tree_map_with_path(recorded, template)
    return state


def read_batch(data: Arrays, k: int) -> Batch:
    """The transitions of update k."""
    names = ("observations", "actions", "rewards", "masks", "next_observations")
    columns: dict[str, Any] = {name: jnp.asarray(data[f"batch{k}/{name}"]) for name in names}
    return Batch(**columns)


def read_noise(data: Arrays, k: int) -> JointNoise:
    """The draws of update k."""
    x0, t, target, actor = (
        jnp.asarray(data[f"noise{k}/{name}"])
        for name in ("flow_x0", "flow_t", "target_noise", "actor_noise")
    )
    return JointNoise(FlowNoise(x0, t), target, actor)


# Quantities ------------------------------------------------------------------------------------


def losses_and_gradients(
    agent: DeFlow, state: DeFlowState, batch: Batch, noise: JointNoise
) -> tuple[Metrics, dict[str, Any]]:
    """Metrics, and gradients by the official names; targets have none."""
    base = agent.propose(state, batch.observations, noise.actor)
    next_base = agent.propose(state, batch.next_observations, noise.target)
    flow, flow_metrics = agent.flow_gradients(state, batch, noise.flow)
    policy, metrics = agent.policy_gradients(state, batch, next_base, base)
    trees: dict[str, Any] = {"flow": flow, **policy._asdict()}
    if agent.multiplier == "fixed":
        del trees["log_alpha"]
    return {**metrics, **flow_metrics}, by_official_name(trees)


def compare_metrics(ours: Metrics, data: Arrays, k: int) -> list[Comparison]:
    """The summed loss, its terms and the other metrics of update k."""
    alpha_loss = ours.get("actor/alpha_loss", jnp.zeros(()))
    actor_loss = ours["flow/loss"] + ours["actor/loss"] + alpha_loss
    named = {
        "critic/critic_loss": ours["critic/loss"],
        "critic/q_mean": ours["critic/q_mean"],
        "critic/q_max": ours["critic/q_max"],
        "critic/q_min": ours["critic/q_min"],
        "actor/actor_loss": actor_loss,
        "actor/bc_flow_loss": ours["flow/loss"],
        "actor/distill_loss": ours["actor/squared_residual"],
        "actor/q_loss": ours["actor/q_loss"],
        "actor/q": ours["actor/q"],
        "actor/alpha_loss": alpha_loss,
        "actor/alpha_value": ours["actor/alpha"],
    }
    found = [
        _relative(f"update {k}: {name}", value, data[f"info{k}/{name}"])
        for name, value in named.items()
        if f"info{k}/{name}" in data
    ]
    total = ours["critic/loss"] + actor_loss
    return [_relative(f"update {k}: loss", total, data[f"loss{k}"]), *found]


def compare_gradients(ours: Mapping[str, Any], data: Arrays, k: int) -> list[Comparison]:
    """The gradients of update k; what has none here must have a zero gradient there."""
    prefix = f"grads{k}/"
    found = []
    for name in (key.removeprefix(prefix) for key in data if key.startswith(prefix)):
        reference = data[prefix + name]
        own = ours.get(name, np.zeros_like(reference))
        found.append(_relative(f"update {k}: gradient of {name}", own, reference))
    return found


def compare_parameters(state: DeFlowState, data: Arrays, prefix: str) -> list[Comparison]:
    """Where the parameters ended, against how far they moved."""
    found = []
    for name, leaf in by_official_name(state).items():
        reference = data[f"{prefix}/{name}"]
        moved = np.linalg.norm(reference - data[f"params0/{name}"])
        off = np.linalg.norm(np.asarray(leaf).reshape(reference.shape) - reference)
        found.append(Comparison(f"final {name}", _ratio(off, MOVEMENT * moved)))
    return found


def compare_actions(agent: DeFlow, state: DeFlowState, data: Arrays) -> list[Comparison]:
    """Proposals and refined actions, from the recorded noise."""
    observations, noise = jnp.asarray(data["act/observations"]), jnp.asarray(data["act/noise"])
    pairs = {
        "actions": agent.act(state, observations, noise),
        "flow_actions": agent.propose(state, observations, noise),
    }
    return [
        Comparison(name, float(np.abs(np.asarray(own) - data[f"act/{name}"]).max() / ACTIONS))
        for name, own in pairs.items()
    ]


def _relative(name: str, ours: Any, reference: np.ndarray) -> Comparison:
    """The norm of the difference over what is allowed for a quantity of the reference's norm."""
    off = np.linalg.norm(np.asarray(ours).reshape(reference.shape) - reference)
    return Comparison(name, _ratio(off, RELATIVE * np.linalg.norm(reference)))


def _ratio(off: Any, allowed: Any) -> float:
    return float(off) / max(float(allowed), FLOOR)
