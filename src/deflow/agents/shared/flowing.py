"""A flow for the behaviour, and critics beside it, as several systems share them."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.agents.shared.critical import Bootstrapped
from deflow.agents.shared.trained import Grads, Trained
from deflow.behavior.flow import (
    FlowNoise,
    Path,
    Solver,
    VectorField,
    draw_flow,
    flow_matching_loss,
    integrate,
)
from deflow.core.agent import ONLINE, Mode, Noise, Online, Phase
from deflow.core.settings import setting
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.extraction.best_of import best_of


class Flowing(Trained):
    """An agent whose behaviour is a flow."""

    behavior_settings: ClassVar[tuple[str, ...]] = ("path",)

    integration_steps: int = setting(10, at_least=1)
    """Steps from noise to an action."""
    solver: Solver = setting("euler")
    """How the flow is integrated; `euler` in all published runs."""
    path: Path = setting("straight")
    """Probability path of flow matching; `straight` in all published runs."""
    best_of: int = setting(1, at_least=1)
    """Actions proposed for each that is taken: the critic's favourite."""

    def flow_phase(self, spec: Spec, steps: int, name: str = "flow", **options: Any) -> Phase:
        """A phase that trains the flow alone."""
        cls = type(self)
        return self.phase(name, spec, steps, cls.flow_gradients, cls.draw_flow, **options)

    def flow_gradients(
        self, state: Any, batch: Batch, noise: FlowNoise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """Behaviour cloning by flow matching: no value is involved."""
        flow, metrics = self.flow_gradient(state, batch, noise)
        return {"flow": flow}, metrics

    def flow_gradient(
        self, state: Any, batch: Batch, noise: FlowNoise, weights: Array | float = 1.0
    ) -> tuple[VectorField, Metrics]:
        loss, grads = eqx.filter_value_and_grad(flow_matching_loss)(
            state.flow.model,
            batch.observations,
            batch.actions,
            noise.x0,
            noise.t,
            path=self.path,
            weights=weights,
        )
        return grads, {"flow/loss": loss}

    def draw_flow(self, key: PRNGKeyArray, spec: Spec) -> FlowNoise:
        return draw_flow(key, (self.batch_size, spec.action_dim))

    def draw_base(self, key: PRNGKeyArray, spec: Spec, *samples: int) -> Float[Array, "... act"]:
        """Where the flow starts, for a batch."""
        return jax.random.normal(key, (*samples, self.batch_size, spec.action_dim))

    def base(
        self, state: Any, observations: Float[Array, "*some obs"], x0: Float[Array, "*batch act"]
    ) -> Float[Array, "*batch act"]:
        """Actions of the flow, through which nothing is differentiated."""
        field = state.flow.model
        actions = integrate(field, observations, x0, self.integration_steps, self.solver)
        return jax.lax.stop_gradient(actions)

    def sample(
        self, state: Any, observations: Float[Array, "*some obs"], x0: Float[Array, "*batch act"]
    ) -> Float[Array, "*batch act"]:
        """Actions of the policy, before a choice among several: those of the flow."""
        return self.base(state, observations, x0)

    def draw_act(self, key: PRNGKeyArray, spec: Spec) -> Float[Array, "... act"]:
        several = (self.best_of,) if self.best_of > 1 else ()
        return jax.random.normal(key, (*several, spec.action_dim))

    def act(
        self,
        state: Any,
        observations: Float[Array, "n obs"],
        noise: Float[Array, "n ... act"],
        mode: Mode = "evaluate",
    ) -> Float[Array, "n act"]:
        """A stochastic sample in either mode, or the best of several."""
        return self._best(state, observations, noise, self.sample)

    def propose(
        self, state: Any, observations: Float[Array, "n obs"], noise: Float[Array, "n ... act"]
    ) -> Float[Array, "n act"]:
        """What the flow alone would do; also the best of several where the noise holds several."""
        return self._best(state, observations, noise, self.base)

    def rank(
        self, state: Any, observations: Float[Array, "*b obs"], actions: Float[Array, "*b act"]
    ) -> Float[Array, " *b"]:
        """The value by which the best action is chosen."""
        q: Array = self.value(state, observations, actions)  # type: ignore[attr-defined]
        return q

    def _best(
        self, state: Any, observations: Array, noise: Array, sample: Callable[..., Array]
    ) -> Array:
        if noise.ndim == 2:  # One action for each observation.
            return sample(state, observations, noise)
        each = observations[:, None]
        candidates = sample(state, each, noise)
        return best_of(candidates, self.rank(state, each, candidates))


class JointNoise(NamedTuple):
    """The draws of an update that trains flow, critics and policy together."""

    flow: FlowNoise
    target: Float[Array, "... batch act"]
    """Where the flow starts for the target's next actions."""
    actor: Float[Array, "batch act"]
    """Where it starts for the actor's loss."""
    critic: Noise = ()


class FlowPolicy(Flowing, Bootstrapped):
    """A flow for the behaviour and critics, in one update: FQL, DeFlow, FAWAC, FBRAC."""

    def phases(self, spec: Spec, schedule: str) -> tuple[Phase, ...]:
        cls = type(self)
        return (self.phase("joint", spec, spec.total_steps, cls.gradients, cls.draw_joint),)

    def online(self, spec: Spec, steps: int) -> Online:
        cls = type(self)
        return Online(self.phase(ONLINE, spec, steps, cls.online_gradients, cls.draw_joint))

    def draw_joint(self, key: PRNGKeyArray, spec: Spec) -> JointNoise:
        keys = jax.random.split(key, 4)
        return JointNoise(
            flow=self.draw_flow(keys[0], spec),
            target=self.draw_base(keys[1], spec, *self.target_samples),
            actor=self.draw_base(keys[2], spec),
            critic=self.draw_critic(keys[3], spec),
        )

    def proposed(
        self, state: Any, batch: Batch, noise: JointNoise
    ) -> tuple[Float[Array, "... batch act"], Float[Array, "batch act"]]:
        """What the flow would do at s', perhaps several times, and at s, by one integration."""
        starts = jnp.concatenate([noise.target.reshape(-1, *noise.actor.shape), noise.actor[None]])
        states = jnp.stack([batch.next_observations] * (len(starts) - 1) + [batch.observations])
        base = self.base(state, states, starts)
        return base[:-1].reshape(noise.target.shape), base[-1]

    @abc.abstractmethod
    def gradients(
        self, state: Any, batch: Batch, noise: JointNoise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """The published algorithm: gradients of every loss."""

    def online_gradients(
        self, state: Any, batch: Batch, noise: JointNoise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """Online: the same."""
        return self.gradients(state, batch, noise, clock)
