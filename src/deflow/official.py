"""How the official implementations name what we have: settings, parameters, draws and metrics.

Facts about FQL's code (agents fql, iql, ifql, rebrac) and DeFlow's, for `deflow.parity`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from deflow.agents.deflow import DeFlow
from deflow.agents.fql import FQL
from deflow.agents.ifql import IFQL
from deflow.agents.iql import IQL
from deflow.agents.rebrac import ReBRAC
from deflow.agents.shared import JointNoise, Trained
from deflow.behavior.flow import FlowNoise
from deflow.core.errors import DeFlowError

Arrays = Mapping[str, np.ndarray]
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Official:
    """One official agent: how its files are read.

    Attributes:
        agent: from a recorded configuration to our settings.
        noise: from a file and an update's number to our draws.
        modules: our parts of the state, and theirs.
        metrics: their metrics, and ours.
        losses: our metrics that sum to their loss.
        fields: row fields that a batch carries.
    """

    agent: Callable[[Config], Trained]
    noise: Callable[[Arrays, int], Any]
    modules: Mapping[str, str]
    metrics: Mapping[str, str]
    losses: tuple[str, ...]
    fields: tuple[str, ...] = ()
    extra: Mapping[str, float] = field(default_factory=dict)
    """Their metrics that are constants here."""
    online: Callable[[Config, int], bool] = lambda config, k: False
    """Whether an update, by its number, is one of those that we have apart as online."""


CRITIC = {"critic": "modules_critic/value_net", "target_critic": "modules_target_critic/value_net"}
Q = {
    "critic/critic_loss": "critic/loss",
    "critic/q_mean": "critic/q_mean",
    "critic/q_max": "critic/q_max",
    "critic/q_min": "critic/q_min",
}
# In these agents the reported Q is the target of the regression.
TARGET = {
    "critic/critic_loss": "critic/loss",
    "critic/q_mean": "critic/target_mean",
    "critic/q_max": "critic/target_max",
    "critic/q_min": "critic/target_min",
}
VALUE = {
    "value/value_loss": "value/loss",
    "value/v_mean": "value/v_mean",
    "value/v_max": "value/v_max",
    "value/v_min": "value/v_min",
}
FLOW_ACTOR = {
    "actor/bc_flow_loss": "flow/loss",
    "actor/q_loss": "actor/q_loss",
    "actor/q": "actor/q",
}


def common(config: Config) -> dict[str, Any]:
    """The settings that every agent has."""
    return {
        "discount": config["discount"],
        "learning_rate": config["lr"],
        "tau": config["tau"],
        "batch_size": config["batch_size"],
        "hidden": tuple(config["value_hidden_dims"]),
        "actor_hidden": tuple(config["actor_hidden_dims"]),
        "critic_layer_norm": config["layer_norm"],
        "actor_layer_norm": config["actor_layer_norm"],
    }


def deflow(config: Config) -> DeFlow:
    """DeFlow's settings; without the multiplier its code weighs by alpha squared."""
    lagrangian = config["use_lagrange"]
    return DeFlow(
        **common(config),
        delta=config["target_divergence"],
        prior_online="coasting" if config.get("fix_bc_flow_online") else "learns",
        # 0 would mean a learnt one; the square of so little is nothing in float32.
        fixed_alpha=0.0 if lagrangian else config["alpha"] or 1e-30,
        legacy_alpha_squared=not lagrangian,
        target_aggregation=config["q_agg"],
        normalize_q=config["normalize_q_loss"],
        integration_steps=config["flow_steps"],
    )


def fql(config: Config) -> FQL:
    """FQL's settings."""
    return FQL(
        **common(config),
        alpha=config["alpha"],
        target_aggregation=config["q_agg"],
        normalize_q=config["normalize_q_loss"],
        integration_steps=config["flow_steps"],
    )


def iql(config: Config) -> IQL:
    """IQL's settings; only its published form is built here."""
    if not config.get("const_std", True):
        raise DeFlowError("The file is of IQL with a learnt deviation, which is not built here.")
    if config.get("actor_loss", "awr") != "awr":
        raise DeFlowError(
            "The file is of IQL with another actor loss than AWR, which is all we have."
        )
    return IQL(**common(config), alpha=config["alpha"], expectile=config["expectile"])


def ifql(config: Config) -> IFQL:
    """IFQL's settings."""
    return IFQL(
        **common(config),
        expectile=config["expectile"],
        best_of=config["num_samples"],
        integration_steps=config["flow_steps"],
    )


def rebrac(config: Config) -> ReBRAC:
    """ReBRAC's settings."""
    return ReBRAC(
        **common(config),
        alpha_actor=config["alpha_actor"],
        alpha_critic=config["alpha_critic"],
        noise_scale=config["actor_noise"],
        noise_clip=config["actor_noise_clip"],
        actor_every=config["actor_freq"],
        squash=config["tanh_squash"],
    )


def coasts(config: Config, k: int) -> bool:
    """Whether update k of DeFlow leaves the flow without a loss: its count of steps begins at 1."""
    return bool(config.get("fix_bc_flow_online")) and 1 + k > config.get("offline_steps", 0)


def recorded(data: Arrays, k: int, *names: str) -> list[Any]:
    """The draws of update k."""
    return [jnp.asarray(data[f"noise{k}/{name}"]) for name in names]


def flow_noise(data: Arrays, k: int) -> FlowNoise:
    """The draws of flow matching."""
    return FlowNoise(*recorded(data, k, "flow_x0", "flow_t"))


def joint_noise(data: Arrays, k: int) -> JointNoise:
    """The draws of an update that trains flow, critics and policy together."""
    return JointNoise(flow_noise(data, k), *recorded(data, k, "target_noise", "actor_noise"))


OFFICIAL = {
    "deflow": Official(
        deflow,
        joint_noise,
        {
            **CRITIC,
            "flow": "modules_actor_bc_flow/mlp",
            "refinement": "modules_refine_onestep_flow/mlp",
            "log_alpha": "modules_log_alpha/value",
        },
        {
            **Q,
            **FLOW_ACTOR,
            "actor/distill_loss": "actor/squared_residual",
            "actor/alpha_loss": "actor/alpha_loss",
            "actor/alpha_value": "actor/alpha",
        },
        ("critic/loss", "flow/loss", "actor/loss", "actor/alpha_loss"),
        online=coasts,
    ),
    "fql": Official(
        fql,
        joint_noise,
        {
            **CRITIC,
            "flow": "modules_actor_bc_flow/mlp",
            "one_step": "modules_actor_onestep_flow/mlp",
        },
        {**Q, **FLOW_ACTOR, "actor/distill_loss": "actor/distill_loss"},
        ("critic/loss", "flow/loss", "actor/loss"),
    ),
    "iql": Official(
        iql,
        lambda data, k: (),
        {**CRITIC, "value": "modules_value/value_net", "actor": "modules_actor"},
        {
            **TARGET,
            **VALUE,
            "actor/adv": "actor/advantage",
            "actor/bc_log_prob": "actor/log_prob",
            "actor/mse": "actor/mse",
        },
        ("critic/loss", "value/loss", "actor/loss"),
        extra={"actor/std": 1.0},
    ),
    "ifql": Official(
        ifql,
        flow_noise,
        {
            **CRITIC,
            "value": "modules_value/value_net",
            "flow": "modules_actor_flow/mlp",
        },
        {**TARGET, **VALUE, "actor/actor_loss": "flow/loss"},
        ("critic/loss", "value/loss", "flow/loss"),
    ),
    "rebrac": Official(
        rebrac,
        lambda data, k: recorded(data, k, "target_noise")[0],
        {**CRITIC, "actor": "modules_actor", "target_actor": "modules_target_actor"},
        {
            **Q,
            "actor/actor_loss": "actor/q_loss",
            "actor/bc_loss": "actor/bc_loss",
            "actor/mse": "actor/distance",
            "actor/total_loss": "actor/loss",
        },
        ("critic/loss", "actor/loss"),
        fields=("next_actions",),
        extra={"actor/std": 1.0},
    ),
}


def reader(config: Config) -> Official | None:
    """How the files of this configuration are read; None where the agent is not known."""
    found = OFFICIAL.get(config["agent_name"])
    if found is None or config.get("use_lagrange", True):
        return found
    # No multiplier is among the parameters then. Reported is alpha, though its square weighs.
    modules = {part: name for part, name in found.modules.items() if part != "log_alpha"}
    metrics = {theirs: own for theirs, own in found.metrics.items() if own != "actor/alpha"}
    extra = {"actor/alpha_value": config["alpha"]}
    return replace(found, modules=modules, metrics=metrics, extra=extra)
