"""IFQL: IQL's critics choose among several actions of a flow that clones the behaviour.

The flow counterpart of IDQL (arXiv 2304.10573) as built by FQL (arXiv 2502.02538, appendix E.2).
"""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.agents.shared import Continuing, Flowing, Grads, Implicit
from deflow.behavior.flow import FlowNoise, VectorField
from deflow.core.agent import Phase
from deflow.core.settings import setting
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.nn.learner import Learner
from deflow.value.expectile import StateValue
from deflow.value.td import Critic


class IFQLState(eqx.Module):
    """All that is learnt, and all that a resumed run needs."""

    flow: Learner[VectorField]
    critic: Learner[Critic]
    target_critic: Critic
    value: Learner[StateValue]


class IFQL(Continuing, Flowing, Implicit):
    """Settings of IFQL."""

    name: ClassVar[str] = "ifql"
    sees_frames: ClassVar[bool] = True

    best_of: int = setting(32, at_least=1)
    """Actions proposed for each that is taken (N of Table 6)."""

    def init(self, key: PRNGKeyArray, spec: Spec) -> IFQLState:
        keys = jax.random.split(key, 3)
        critic = self.init_critic(keys[1], spec)
        return IFQLState(
            flow=self.actor(VectorField, keys[0], spec),
            critic=self.learner(critic),
            target_critic=critic,
            value=self.learner(self.init_value(keys[2], spec)),
        )

    def learning(self, name: str, spec: Spec, steps: int) -> Phase:
        return self.phase(name, spec, steps, IFQL.gradients, IFQL.draw_flow)

    def gradients(
        self, state: IFQLState, batch: Batch, noise: FlowNoise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """Flow, value and critics, none of which needs another's policy."""
        flow, metrics = self.flow_gradients(state, batch, noise, clock)
        values, value_metrics = self.value_gradients(state, batch, noise, clock)
        return {**flow, **values}, {**metrics, **value_metrics}

    def rank(self, state: IFQLState, observations: Array, actions: Array) -> Float[Array, "..."]:
        """The smaller of the online critics."""
        return state.critic.model(observations, actions).min(0)
