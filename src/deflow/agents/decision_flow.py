"""Decision Flow: a flow's own steps are decisions, each steered by a value of the flow's state.

Hu et al., "Decision Flow Policy Optimization", arXiv 2505.20350, in its variants DF-dir and DF-div.
**A derivation, not a reproduction**: no code of it and none of its equations are public, only a
summary could be read: the behaviour is cloned by flow matching and then frozen, Q comes from an
offline method such as IQL, the flow is a decision process with a terminal reward of Q, DF-div may
see the previous action. Ours are the losses (derived in `deflow.extraction.decision_flow`), where
they look, and the policy's start as a copy of the behaviour; sizes are the FQL family's.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from deflow.agents.shared import Flowing, Grads, Implicit, gradient_of, share_flow
from deflow.behavior.flow import VectorField, integrate, interpolate
from deflow.core.agent import Noise, Phase, State, Update
from deflow.core.settings import setting
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.extraction import decision_flow as steering
from deflow.extraction.decision_flow import FlowStates, FlowValue, StatesNoise
from deflow.nn.learner import Learner
from deflow.value.expectile import StateValue
from deflow.value.td import Aggregation, Critic, aggregate


class DFState(eqx.Module):
    """All that is learnt, and all that a resumed run needs; the last two are DF-div's."""

    flow: Learner[VectorField]
    critic: Learner[Critic]
    target_critic: Critic
    value: Learner[StateValue]
    policy: Learner[VectorField]
    flow_value: Learner[FlowValue]
    target_flow_value: FlowValue | None = None
    flow_critic: Learner[FlowValue] | None = None


class DecisionFlow(Flowing, Implicit):
    """What both variants share. Behaviour and critics come first and rest in the last phase."""

    schedules: ClassVar[tuple[str, ...]] = ("staged",)
    unused: ClassVar[Mapping[str, str]] = {"solver": "the decisions are Euler's steps"}

    expectile: float = setting(0.7, above=0, below=1)
    """Which expectile of Q the state's value is (mazes: 0.9)."""
    target_aggregation: Aggregation = setting("min")
    """How the flow's terminal reward takes one value out of the target critics."""
    rho: float = setting(0.1, at_least=0)
    """Weight of the policy's distance from the behaviour flow."""
    normalize_q: bool = setting(True)
    """Measure values in units of their mean size over the batch, so that rho needs no scale."""
    behavior_steps: int = setting(0, at_least=0)
    """Gradient steps of the behaviour flow; 0 takes as many as the policy."""
    value_steps: int = setting(0, at_least=0)
    """Gradient steps of IQL's critics; 0 takes as many as the policy."""

    def init(self, key: PRNGKeyArray, spec: Spec) -> DFState:
        keys = jax.random.split(key, 5)
        critic = self.init_critic(keys[1], spec)
        return DFState(
            flow=self.actor(VectorField, keys[0], spec),
            critic=self.learner(critic),
            target_critic=critic,
            value=self.learner(self.init_value(keys[2], spec)),
            policy=self.actor(VectorField, keys[3], spec),
            flow_value=self.flow_value(keys[4], spec, 1 + len(self.policy_fields)),
        )

    def flow_value(self, key: PRNGKeyArray, spec: Spec, vectors: int) -> Learner[FlowValue]:
        """A value of an observation, a time and so many vectors of an action's size."""
        size = spec.observation_dim + 1 + vectors * spec.action_dim
        return self.learner(FlowValue(size, self.hidden, self.critic_layer_norm, key=key))

    def phases(self, spec: Spec, schedule: str) -> tuple[Phase, ...]:
        cls, last = type(self), spec.total_steps
        first, second = self.behavior_steps or last, self.value_steps or last
        learn, draw, fields = cls.policy_gradients, cls.draw_states, self.policy_fields
        flow = self.flow_phase(spec, first, name="behavior", graft=share_flow)
        value = self.phase("value", spec, second, cls.value_gradients)
        policy = self.phase("policy", spec, last, learn, draw, fields=fields)
        return flow, value, dataclasses.replace(policy, update=from_behavior(policy.update))

    @property
    def policy_fields(self) -> tuple[str, ...]:
        """Row fields that the policy's phase needs."""
        return ()

    @abc.abstractmethod
    def policy_gradients(
        self, state: Any, batch: Batch, noise: StatesNoise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """The flow's values and the policy, while behaviour and critics rest."""

    def draw_states(self, key: PRNGKeyArray, spec: Spec) -> StatesNoise:
        return steering.draw_states(key, (self.batch_size, spec.action_dim), self.integration_steps)

    def flow_states(self, state: DFState, batch: Batch, noise: StatesNoise) -> FlowStates:
        """Where the losses look."""
        steps, policy = self.integration_steps, state.policy.model
        t = noise.data_step[:, None] / steps
        data = interpolate(self.path, noise.data_x0, batch.actions, t)
        return steering.flow_states(policy, batch.observations, noise, *data, steps)

    def terminal(self, state: DFState, observations: Array, x: Array) -> Array:
        """Q(s, a_1), the reward of the flow's last step."""
        q = state.target_critic(observations, jnp.clip(x, -1, 1))
        return aggregate(q, self.target_aggregation)

    def sample(self, state: DFState, observations: Array, x0: Array) -> Array:
        """The policy's Euler steps, which are the decisions that it learnt."""
        return integrate(state.policy.model, observations, x0, self.integration_steps)


def from_behavior(update: Update) -> Update:
    """The update, before whose first step the policy becomes a copy of the behaviour flow."""

    def begun(
        agent: Any, state: State, batch: Batch, noise: Noise, clock: Clock
    ) -> tuple[State, Metrics]:
        old, flow = state.policy.model, state.flow.model
        policy = jax.lax.cond(clock.step == 0, lambda: flow, lambda: old)
        state = eqx.tree_at(lambda s: s.policy.model, state, policy)
        return update(agent, state, batch, noise, clock)

    return begun


class DFDir(DecisionFlow):
    """Settings of Decision Flow in its direction-oriented form."""

    name: ClassVar[str] = "df-dir"

    def policy_gradients(
        self, state: DFState, batch: Batch, noise: StatesNoise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """V^f on Q at the path's end, and the velocity's direction on V^f one step ahead."""
        states, net = self.flow_states(state, batch, noise), state.flow_value.model
        obs, behavior = states.observations, state.flow.model
        end = partial(self.terminal, state, obs)
        ahead = lambda x: steering.value_ahead(states, x, partial(net, obs), end)  # noqa: E731
        value, value_metrics = gradient_of(steering.flow_value_loss)(
            net, (obs, states.x, states.t), end(states.path[-1]), "flow_value"
        )
        loss = partial(steering.direction_loss, normalize=self.normalize_q)
        policy, metrics = gradient_of(loss)(state.policy.model, ahead, states, behavior, self.rho)
        return {"policy": policy, "flow_value": value}, {**value_metrics, **metrics}


class DFDiv(DecisionFlow):
    """Settings of Decision Flow in its divergence-oriented form."""

    name: ClassVar[str] = "df-div"
    targets: ClassVar[Mapping[str, str]] = {**Implicit.targets, "target_flow_value": "flow_value"}

    previous_action: bool = setting(True)
    """Let V^chi see the environment's previous action, zeros where an episode begins."""

    def init(self, key: PRNGKeyArray, spec: Spec) -> DFState:
        key, critic_key = jax.random.split(key)
        state, critic = super().init(key, spec), self.flow_value(critic_key, spec, 2)
        net = state.flow_value.model
        return dataclasses.replace(state, target_flow_value=net, flow_critic=critic)

    @property
    def policy_fields(self) -> tuple[str, ...]:
        return ("previous_actions",) if self.previous_action else ()

    def policy_gradients(
        self, state: Any, batch: Batch, noise: StatesNoise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """V^chi on what the path still earns, Q^f on a step and V^chi, and the policy on Q^f."""
        states, behavior, rho = self.flow_states(state, batch, noise), state.flow.model, self.rho
        obs, net, where = states.observations, state.flow_critic.model, (states.x, states.t)
        seen = (obs, *(jnp.concatenate([batch.fields[name]] * 2) for name in self.policy_fields))
        # Measured at the data's actions, so that the scale stays while the policy learns.
        q = jnp.abs(self.terminal(state, batch.observations, batch.actions))
        scale = q.mean() if self.normalize_q else 1.0
        end = lambda x: self.terminal(state, obs, x) / scale  # noqa: E731
        to_go = steering.path_returns(states, behavior, end, rho)
        learn = gradient_of(steering.flow_value_loss)
        value, metrics = learn(state.flow_value.model, (*seen, *where), to_go, "flow_value")
        lagging = partial(state.target_flow_value, *seen)
        target = steering.step_return(states, behavior, lagging, end, rho)
        critic, critic_metrics = learn(net, (obs, *where, states.u), target, "flow_critic")
        steer, climbed = gradient_of(steering.divergence_loss), partial(net, obs, *where)
        policy, policy_metrics = steer(state.policy.model, climbed, states, behavior, rho)
        grads = {"flow_value": value, "flow_critic": critic, "policy": policy}
        return grads, {**metrics, **critic_metrics, **policy_metrics}
