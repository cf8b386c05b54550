"""A family of runs: seeds and swept settings, stacked on one axis and trained by one program."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from deflow.core.agent import Agent, Phase, RowField, State, stack
from deflow.core.device import ONCE
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.training.device_data import DeviceData

PURPOSES = ("init", "train", "rows", "act")


@dataclass(frozen=True)
class Member:
    """One run of a family: its seed and the settings in which it differs from the others."""

    seed: int
    settings: tuple[tuple[str, float], ...] = ()

    @property
    def label(self) -> str:
        return "-".join(
            [f"seed{self.seed}", *(f"{name}{value:g}" for name, value in self.settings)]
        )

    def key(self, purpose: str) -> PRNGKeyArray:
        """One key per run, split by purpose."""
        return jax.random.fold_in(jax.random.key(self.seed), PURPOSES.index(purpose))


def members_of(seeds: Sequence[int], over: Mapping[str, Sequence[float]]) -> list[Member]:
    """Every seed with every combination of the swept settings."""
    grid = itertools.product(*([(name, value) for value in over[name]] for name in over))
    return [Member(seed, settings) for settings in grid for seed in seeds]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Family:
    """Stacked agents and keys: every numeric setting has one value per member."""

    agents: Agent
    train_keys: PRNGKeyArray
    row_keys: PRNGKeyArray
    act_keys: PRNGKeyArray
    members: tuple[Member, ...] = field(metadata={"static": True})

    @classmethod
    def build(cls, agent: Agent, members: Sequence[Member]) -> Family:
        def settings(member: Member) -> Agent:
            varied = eqx.tree_at(
                lambda a: [getattr(a, name) for name, _ in member.settings],
                agent,
                [value for _, value in member.settings],
            )
            traced: Agent = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), varied)
            return traced

        keys = {p: jnp.stack([m.key(p) for m in members]) for p in PURPOSES}
        agents = stack([settings(member) for member in members])
        return cls(
            agents=agents,
            train_keys=keys["train"],
            row_keys=keys["rows"],
            act_keys=keys["act"],
            members=tuple(members),
        )

    @property
    def init_keys(self) -> PRNGKeyArray:
        return jnp.stack([member.key("init") for member in self.members])

    def init(self, spec: Spec) -> State:
        """The members' first states, stacked."""
        return _init(self.agents, self.init_keys, spec)

    def shapes(self, spec: Spec) -> State:
        """What `init` returns, as shapes and types; nothing is built."""
        return jax.eval_shape(partial(_first_states, spec=spec), self.agents, self.init_keys)

    def kept(self, states: State) -> dict[str, Any]:
        """What a checkpoint holds of a family: its states, and the keys that made their draws."""
        return {"states": states, "keys": jax.random.key_data(self.train_keys)}

    def first(self) -> Family:
        """The family of its first member alone."""
        arrays = replace(self, members=())
        one: Family = jax.tree.map(lambda leaf: leaf[:1], arrays)
        return replace(one, members=self.members[:1])


def _first_states(agents: Agent, keys: PRNGKeyArray, spec: Spec) -> State:
    return jax.vmap(lambda agent, key: agent.init(key, spec))(agents, keys)


_init = jax.jit(_first_states, static_argnames="spec", compiler_options=ONCE)


def run_chunk(
    family: Family,
    states: State,
    data: DeviceData,
    fields: dict[str, Array],
    start: Array,
    phase: Phase,
    phase_index: int,
    length: int,
) -> tuple[State, Metrics]:
    """`length` updates of every member, from step `start` of the phase.

    Row fields have a leading axis of members, or of 1 where all share them. Metrics come back as
    [length, members]. The draws of a step depend only on the member's key, the phase and the step:
    a resumed run repeats them.
    """
    chunk = _run_together if data.previous is None else _run_in_turn
    return chunk(family, states, data, fields, start, phase, phase_index, length)


@eqx.filter_jit
def _run_together(
    family: Family,
    states: State,
    data: DeviceData,
    fields: dict[str, Array],
    start: Array,
    phase: Phase,
    phase_index: int,
    length: int,
) -> tuple[State, Metrics]:
    """One compiled `scan` over steps of a `vmap` over members."""

    def step_family(states: State, step: Array) -> tuple[State, Metrics]:
        def step_member(
            agent: Agent, state: State, key: PRNGKeyArray, fields: dict[str, Array]
        ) -> tuple[State, Metrics]:
            return _step(agent, state, key, data, fields, step, phase, phase_index)

        new: tuple[State, Metrics]
        new = over_members(step_member, fields)(family.agents, states, family.train_keys)
        return new

    return jax.lax.scan(step_family, states, start + jnp.arange(length))


def _run_in_turn(
    family: Family,
    states: State,
    data: DeviceData,
    fields: dict[str, Array],
    start: Array,
    phase: Phase,
    phase_index: int,
    length: int,
) -> tuple[State, Metrics]:
    """One member after the other, each step a call of one program: for frames.

    Convolutions gain nothing by a batch of kernels, and inside a loop XLA compiles them to code
    that is some twenty times slower on CPUs; a step of theirs is long beside a call.
    """
    finals, histories = [], []
    for member in range(len(family.members)):
        own = {name: column[min(member, len(column) - 1)] for name, column in fields.items()}
        agent, state, key = _taken((family.agents, states, family.train_keys), member)
        history = []
        for step in range(length):
            state, metrics = _one_step(
                agent, state, key, data, own, start + step, phase, phase_index
            )
            history.append(metrics)
        finals.append(state)
        # Fetched once a chunk: until then the steps queue up on the device.
        histories.append(jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(history)))
    return _stacked(finals), jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *histories)


def _step(
    agent: Agent,
    state: State,
    key: PRNGKeyArray,
    data: DeviceData,
    fields: dict[str, Array],
    step: Array,
    phase: Phase,
    phase_index: int,
) -> tuple[State, Metrics]:
    """One update of one member on a batch of the data."""
    draw = lambda key, size: data.sample(key, size, fields)  # noqa: E731
    return one_update(agent, state, key, draw, step, phase, phase_index)


def one_update(
    agent: Agent,
    state: State,
    key: PRNGKeyArray,
    draw_batch: Callable[[PRNGKeyArray, int], Batch],
    step: Array,
    phase: Phase,
    phase_index: int,
) -> tuple[State, Metrics]:
    """One update of one member, whose draws follow from its key, the phase and the step alone."""
    key = jax.random.fold_in(jax.random.fold_in(key, phase_index), step)
    batch_key, noise_key = jax.random.split(key)
    batch = draw_batch(batch_key, phase.batch_size)
    clock = Clock(step, phase_index)
    return phase.update(agent, state, batch, phase.draw(agent, noise_key), clock)


_one_step = eqx.filter_jit(_step)


def _member(trees: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], trees)


_taken, _stacked = jax.jit(_member), jax.jit(stack)


def in_turn(function: Callable[..., Any], *trees: Any) -> Any:
    """`vmap` written out: each member by itself, for what would be slower in a batch."""
    count = jax.tree.leaves(trees)[0].shape[0]
    return stack([function(*_member(trees, index)) for index in range(count)])


def each_member(function: Callable[..., Any], *trees: Any) -> Any:
    """`vmap` over the family's axis.

    A family of one goes through the same function without its axis: XLA compiles products with a
    batch of 1 into programs that are a fifth slower on CPUs.
    """
    if jax.tree.leaves(trees)[0].shape[0] > 1:
        return jax.vmap(function)(*trees)
    return jax.tree.map(lambda leaf: leaf[None], function(*_member(trees, 0)))


def over_members(function: Any, fields: dict[str, Array]) -> Any:
    """`each_member` with columns; those with a leading axis of 1 are shared by all members."""
    shared = {name: column[0] for name, column in fields.items() if column.shape[0] == 1}
    own = {name: column for name, column in fields.items() if name not in shared}

    def mapped(agents: Agent, states: State, keys: PRNGKeyArray) -> Any:
        joined = lambda a, s, k, f: function(a, s, k, {**shared, **f})  # noqa: E731
        return each_member(joined, agents, states, keys, own)

    return mapped


@eqx.filter_jit
def _row_block(
    family: Family, states: State, observations: Array, block: Array, column: RowField
) -> Array:
    def compute(agent: Agent, state: State, key: PRNGKeyArray) -> Array:
        noise = column.draw(agent, jax.random.fold_in(key, block), observations.shape[0])
        return column.compute(agent, state, observations, noise)

    members: tuple[Any, ...] = (family.agents, states, family.row_keys)
    if observations.ndim > 2:
        found: Array = in_turn(compute, *members)
        return found
    return jax.vmap(compute)(*members)


def compute_rows(
    family: Family,
    states: State,
    data: DeviceData,
    column: RowField,
    *,
    block_size: int = 0,
    on_block: Callable[[int, int], None] = lambda done, total: None,
) -> Array:
    """A phase's row field for the whole dataset, [members, rows, ...], block by block.

    The draws depend on the member's row key and the block alone, so that a resumed run computes
    the same column again instead of keeping it on disk. `on_block(done, total)` counts rows.
    Blocks of 2048 rows, or of 256 stacks of frames, unless `block_size` says otherwise.
    """
    rows = data.observations.shape[0]
    seen = data.previous is not None
    block_size = block_size or (256 if seen else 2048)
    padding = -rows % block_size
    observations = None if seen else jnp.pad(data.observations, ((0, padding), (0, 0)))
    blocks = []
    for i in range(0, rows, block_size):
        if observations is None:
            part = data.observed(jnp.minimum(i + jnp.arange(block_size), rows - 1))
        else:
            part = observations[i : i + block_size]
        block = _row_block(family, states, part, jnp.asarray(i), column)
        blocks.append(block.block_until_ready())
        on_block(min(i + block_size, rows), rows)
    return jnp.concatenate(blocks, axis=1)[:, :rows]


@jax.jit
def finite_members(states: State) -> Bool[Array, " members"]:
    """Which members hold finite numbers alone."""
    checks = [
        jnp.isfinite(leaf).reshape(leaf.shape[0], -1).all(1)
        for leaf in jax.tree.leaves(states)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    return jnp.stack(checks).all(0)


@jax.jit
def choose(mask: Bool[Array, " members"], yes: State, no: State) -> State:
    """Member by member: `yes` where the mask holds, `no` elsewhere."""
    return jax.tree.map(
        lambda a, b: jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b), yes, no
    )
