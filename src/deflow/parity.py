"""Numbers of the official implementations, held against ours.

A parity file records a few updates of an official agent at a small size: its parameters before and
after, batches, the draws of each update, losses, gradients, metrics, and actions. `check` repeats
them here, from the recorded draws, and reports every quantity's error beside its limit.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deflow.agents.rebrac import ReBRAC
from deflow.agents.shared import Trained
from deflow.core.device import ONCE
from deflow.core.errors import DeFlowError
from deflow.core.trees import named_leaves, path_name
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.data.npz import read_npz
from deflow.official import OFFICIAL, Arrays, Official, reader

RELATIVE, FLOOR = 1e-4, 1e-6
"""Losses, gradients and metrics agree to this share of the reference, with this absolute floor."""
MOVEMENT = 1e-3
"""Final parameters, leaf by leaf: ||p - reference|| over ||reference - start||."""
ACTIONS = 1e-5
"""Actions, in absolute terms."""


@dataclass(frozen=True)
class Comparison:
    """One quantity: how far it is off, in units of what is allowed (1 is the limit)."""

    name: str
    error: float

    @property
    def passes(self) -> bool:
        return self.error <= 1


def check(path: str | Path) -> list[Comparison]:
    """Every loss, gradient, metric, final parameter and action of a parity file.

    Products are taken in full float32: by default GPUs keep some three digits of their factors.

    Raises `DeFlowError` where it is no such file, lacks something, or is of an agent that is not
    known here.
    """
    data = read_npz(Path(path), required=("config",), kind="parity file")
    config = json.loads(str(data["config"]))
    try:
        official = reader(config)
        if official is None:
            name, known = config["agent_name"], ", ".join(OFFICIAL)
            raise DeFlowError(f"{path} is a file of {name}, but only {known} are known.")
        with jax.default_matmul_precision("highest"):
            return _repeat(config, official, data)
    except KeyError as error:
        raise DeFlowError(f"{path} lacks {error}, which a parity file has.") from error


def _repeat(config: dict[str, Any], official: Official, data: Arrays) -> list[Comparison]:
    """The recorded updates done again, and every quantity compared."""
    agent = official.agent(config)
    spec = Spec(config["state_dim"], config["action_dim"], (-1.0, 0.0), 1_000_000)
    state = read_state(agent.init(jax.random.key(0), spec), official, data)
    found: list[Comparison] = []
    compiled = cache(partial(read_update, agent, spec))  # one offline, one online
    updates = sum(key.startswith("loss") for key in data)
    for k in range(updates):
        batch, noise = read_batch(data, k, official.fields), official.noise(data, k)
        update = compiled(official.online(config, k))
        gradients, metrics, state = update(state, batch, noise, read_clock(agent, data, k))
        found += compare_metrics(official, metrics, data, k)
        found += compare_gradients(by_official_name(gradients, official), data, k)
    found += compare_parameters(by_official_name(state, official), data, f"params{updates}")
    return found + compare_actions(agent, state, data)


# The official tree's names ---------------------------------------------------------------------


def official_name(name: str, modules: Mapping[str, str]) -> tuple[str, int | None] | None:
    """`critic.model.nets.members.1.layers.0.weight` as the official tree has it, and the member of
    the ensemble; None for what it does not have, such as moments."""
    part, _, rest = name.removesuffix(".model").replace(".model.", ".").partition(".")
    if part not in modules or "moments" in rest:
        return None
    module = modules[part]
    if not rest:
        return module, None
    found = re.fullmatch(r"nets?(?:\.members\.(\d+))?\.(layers|norms)\.(\d+)\.(\w+)", rest)
    if found is None:
        return None
    member, kind, index, leaf = found.groups()
    layer = f"{'Dense' if kind == 'layers' else 'LayerNorm'}_{index}"
    leaf = leaf.replace("weight", "kernel")
    return f"{module}/{layer}/{leaf}", None if member is None else int(member)


def place(name: str, data: Arrays, prefix: str) -> str:
    """Where a file keeps a parameter: an actor's last layer is called its mean_net there."""
    module, _, rest = name.partition("/")
    if "actor" not in module or f"{prefix}/{name}" in data or not rest:
        return f"{prefix}/{name}"
    within = f"{prefix}/{module}/actor_net/{rest}"
    return within if within in data else f"{prefix}/{module}/mean_net/{rest.rpartition('/')[2]}"


def by_official_name(tree: Any, official: Official) -> dict[str, np.ndarray]:
    """The parameters of a state, or of a mapping of gradients, by their official names."""
    found: dict[str, dict[int | None, np.ndarray]] = defaultdict(dict)
    for name, leaf in named_leaves(tree).items():
        known = official_name(name, official.modules)
        if known is not None:
            found[known[0]][known[1]] = np.asarray(leaf)
    return {
        name: parts[None] if None in parts else np.stack([parts[i] for i in range(len(parts))])
        for name, parts in found.items()
    }


def read_state(template: Any, official: Official, data: Arrays) -> Any:
    """A state that holds the recorded parameters, its optimisers at rest."""

    def recorded(path: Any, leaf: Any) -> Any:
        known = official_name(path_name(path), official.modules)
        if known is None:
            return leaf
        value = data[place(known[0], data, "params0")]
        return jnp.asarray(value if known[1] is None else value[known[1]]).reshape(leaf.shape)

    return jax.tree_util.tree_map_with_path(recorded, template)


def read_update(agent: Any, spec: Spec, online: bool) -> Callable[..., Any]:
    """An update as one program, which also returns its gradients and metrics; a file has two or
    three, so that the compiler is not asked for a fast one."""
    learn = agent.online_gradients if online else agent.gradients
    phase = agent.online(spec, 1).phase if online else agent.phases(spec, "joint")[0]

    @partial(jax.jit, compiler_options=ONCE)
    def update(state: Any, batch: Batch, noise: Any, clock: Clock) -> tuple[Any, Metrics, Any]:
        gradients, metrics = learn(state, batch, noise, clock)
        return gradients, metrics, phase.update(agent, state, batch, noise, clock)[0]

    return update


def read_batch(data: Arrays, k: int, fields: tuple[str, ...]) -> Batch:
    """The transitions of update k."""
    names = ("observations", "actions", "rewards", "masks", "next_observations")
    columns: dict[str, Any] = {name: jnp.asarray(data[f"batch{k}/{name}"]) for name in names}
    extra = {name: jnp.asarray(data[f"batch{k}/{name}"]) for name in fields}
    return Batch(**columns, fields=extra)


def read_clock(agent: Trained, data: Arrays, k: int) -> Clock:
    """The step of update k; for ReBRAC, one at which its actor moves or rests as recorded."""
    if isinstance(agent, ReBRAC):
        return Clock(jnp.asarray(agent.actor_every - 1 if data[f"full_update{k}"] else 0))
    return Clock(jnp.asarray(k))


# Quantities ------------------------------------------------------------------------------------


def compare_metrics(official: Official, ours: Metrics, data: Arrays, k: int) -> list[Comparison]:
    """The summed loss, its terms and the other metrics of update k."""
    total = sum(ours.get(name, jnp.zeros(())) for name in official.losses)
    found = [_relative(f"update {k}: loss", total, data[f"loss{k}"])]
    # Not the total less the others, where a large critic's loss would leave few of its digits.
    policy = [name for name in official.losses if name not in ("critic/loss", "value/loss")]
    actor = sum(ours.get(name, jnp.zeros(())) for name in policy)
    for key in (key for key in data if key.startswith(f"info{k}/")):
        name = key.removeprefix(f"info{k}/")
        own: Any
        if name in official.metrics:
            own = ours.get(official.metrics[name], jnp.zeros(()))
        elif name in official.extra:
            own = official.extra[name]
        elif name in ("actor/actor_loss", "actor/total_loss"):
            own = actor
        else:
            own = np.inf  # nothing here stands for it: it fails, and the rest is still compared
        found.append(_relative(f"update {k}: {name}", own, data[key]))
    return found


def compare_gradients(ours: Mapping[str, Any], data: Arrays, k: int) -> list[Comparison]:
    """The gradients of update k; what has none here must have a zero gradient there."""
    prefix = f"grads{k}"
    placed = {place(name, data, prefix): leaf for name, leaf in ours.items()}
    found = []
    for key in (key for key in data if key.startswith(f"{prefix}/")):
        own = placed.get(key, np.zeros_like(data[key]))
        name = key.removeprefix(f"{prefix}/")
        found.append(_relative(f"update {k}: gradient of {name}", own, data[key]))
    return found


def compare_parameters(ours: Mapping[str, Any], data: Arrays, prefix: str) -> list[Comparison]:
    """Where the parameters ended, against how far they moved."""
    found = []
    for name, leaf in ours.items():
        key = place(name, data, prefix)
        reference = data[key]
        moved = np.linalg.norm(reference - data[place(name, data, "params0")])
        off = np.linalg.norm(leaf.reshape(reference.shape) - reference)
        found.append(Comparison(f"final {key.partition('/')[2]}", _ratio(off, MOVEMENT * moved)))
    return found


def compare_actions(agent: Trained, state: Any, data: Arrays) -> list[Comparison]:
    """Actions, and proposals of the flow where they are recorded, from the recorded noise."""
    observations = jnp.asarray(data["act/observations"])
    noise: Any = jnp.asarray(data["act/noise"]) if "act/noise" in data else ()
    own = {"actions": agent.act(state, observations, noise, "evaluate")}
    if "act/flow_actions" in data:
        # All proposals, also where an action is the best of several.
        each = observations if noise.ndim == 2 else observations[:, None]
        own["flow_actions"] = agent.base(state, each, noise)  # type: ignore[attr-defined]
    return [_absolute(name, value, data[f"act/{name}"]) for name, value in own.items()]


def _absolute(name: str, ours: Any, reference: np.ndarray) -> Comparison:
    """The largest difference of two actions; those of other numbers are not the same."""
    same = np.shape(ours) == reference.shape
    off = np.abs(np.asarray(ours) - reference).max() if same else np.inf
    return Comparison(name, float(off / ACTIONS))


def _relative(name: str, ours: Any, reference: np.ndarray) -> Comparison:
    """The norm of the difference over what is allowed for a quantity of the reference's norm."""
    off = np.linalg.norm(np.asarray(ours).reshape(reference.shape) - reference)
    return Comparison(name, _ratio(off, RELATIVE * np.linalg.norm(reference)))


def _ratio(off: Any, allowed: Any) -> float:
    return float(off) / max(float(allowed), FLOOR)
