"""The contract between an agent and everything that runs it."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.core.checks import require_unset
from deflow.core.settings import check_settings
from deflow.core.types import Batch, Clock, Metrics, Spec

State = Any
"""A pytree of arrays; each agent has its own."""
Noise = Any
"""A pytree of random numbers; each update and each action has its own."""
Mode = Literal["evaluate", "explore"]
Update = Callable[[Any, State, Batch, Noise, Clock], tuple[State, Metrics]]


@dataclass(frozen=True)
class RowField:
    """A column that a phase leaves behind: one value for every row of the dataset.

    `compute(agent, state, observations, noise)` maps observations [n, obs] and the noise that
    `draw(agent, key, n)` makes to an array [n, ...].
    """

    name: str
    draw: Callable[[Any, PRNGKeyArray, int], Noise]
    compute: Callable[[Any, State, Float[Array, "n obs"], Noise], Array]


@dataclass(frozen=True)
class Phase:
    """A stretch of training: one update, repeated `steps` times.

    `draw(agent, key)` makes every random number that one update uses. `fields` names the row fields
    the batch must carry, `leaves` those that the phase leaves behind for later ones.
    `graft(state, donor)` puts what the phase learns in `donor` into another state, so that one
    member's work, or another run's, may serve all; None where nothing can be shared.
    """

    name: str
    steps: int
    batch_size: int
    draw: Callable[[Any, PRNGKeyArray], Noise]
    update: Update
    fields: tuple[str, ...] = ()
    leaves: tuple[RowField, ...] = ()
    graft: Callable[[State, State], State] | None = None


ONLINE = "online"
"""The name of the phase in which an agent acts."""


@dataclass(frozen=True)
class Online:
    """How an agent learns while it acts.

    Attributes:
        phase: its update; its steps are those of the environment.
        balanced: half of each batch comes from the data that it began with, half from what it met
            itself; otherwise batches are drawn uniformly from both.
        random_steps: steps at the beginning in which actions are drawn uniformly and nothing is
            learnt.
    """

    phase: Phase
    balanced: bool = False
    random_steps: int = 0


class Agent(eqx.Module):
    """A published system: its settings, and the pure functions that train and act with them.

    Numeric settings are leaves, so that a family of runs may sweep them under `vmap`; sizes, names
    and flags are static. The state is a pytree and holds all that a resumed run needs.

    Where an agent has them, other rooms also use its `value` (see `Valued`), its `propose` (see
    `Proposing`) and these settings: `discount`, `reward_scale` and `reward_bias`, which say in what
    units its value is; `best_of`, how many actions are proposed for each that is taken;
    `prior_online`, which is "frozen" where the behaviour does not learn online.
    """

    name: ClassVar[str]
    schedules: ClassVar[tuple[str, ...]] = ("joint",)
    """Ways to order its training; the first is the published one."""
    sees_frames: ClassVar[bool] = False
    """Whether it also learns where observations are frames."""
    needs_data: ClassVar[bool] = True
    """Whether it learns from logged data; one that does not begins in an empty world."""
    unused: ClassVar[Mapping[str, str]] = {}
    """Settings that it inherits and never asks, and why: to set one is refused."""
    behavior_settings: ClassVar[tuple[str, ...]] = ()
    """Settings of the behaviour alone: those who share a behaviour cannot differ in them."""

    def validate(self) -> None:
        """Raise `DeFlowError` where a setting is out of range."""
        check_settings(self)
        for name, why in self.unused.items():
            require_unset(self, name, why)

    @abc.abstractmethod
    def init(self, key: PRNGKeyArray, spec: Spec) -> State:
        """The state before the first update."""

    @abc.abstractmethod
    def phases(self, spec: Spec, schedule: str) -> tuple[Phase, ...]:
        """The phases of training under a named schedule; none where it only learns online."""

    def online(self, spec: Spec, steps: int) -> Online | None:
        """How it goes on learning for `steps` steps in the environment; None where it does not."""
        return None

    def column_settings(self, name: str) -> dict[str, float]:
        """The settings that a column of the data depends on, for a column that a phase names."""
        return {}

    @abc.abstractmethod
    def draw_act(self, key: PRNGKeyArray, spec: Spec) -> Noise:
        """The random numbers of one action of one observation."""

    @abc.abstractmethod
    def act(
        self, state: State, observations: Float[Array, "n obs"], noise: Noise, mode: Mode
    ) -> Float[Array, "n act"]:
        """Actions in [-1, 1]."""


@runtime_checkable
class Valued(Protocol):
    """An agent that says how good actions are."""

    def value(
        self,
        state: State,
        observations: Float[Array, "*batch obs"],
        actions: Float[Array, "*batch act"],
    ) -> Float[Array, " *batch"]:
        """Q(s, a), in units of the rewards that its critics see."""
        ...


@runtime_checkable
class Proposing(Protocol):
    """An agent that refines or chooses among the actions of a model of the behaviour."""

    def propose(
        self, state: State, observations: Float[Array, "n obs"], noise: Noise
    ) -> Float[Array, "n act"]:
        """Actions of the behaviour alone, with the noise that `act` takes; the best of several
        where the noise holds several."""
        ...


def stack(members: list[Any]) -> Any:
    """Stack pytrees of equal structure along a new leading axis: the axis of the family."""
    return jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *members)
