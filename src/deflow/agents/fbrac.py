"""FBRAC: the flow itself raises Q, by gradients through all its integration steps.

A baseline of FQL (arXiv 2502.02538, eq. 6), whose authors released no code: this follows the
equation, with which the re-implementations in value-flows and FAC agree.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from deflow.agents.shared import FlowPolicy, Grads, JointNoise, gradient_of
from deflow.behavior.flow import VectorField, flow_matching_loss, integrate
from deflow.core.settings import setting
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.extraction.backpropagation import through_sampler_loss
from deflow.nn.learner import Learner


class FBRACState(eqx.Module):
    """All that is learnt, and all that a resumed run needs."""

    flow: Learner[VectorField]
    critic: Learner[Any]
    target_critic: Any


class FBRAC(FlowPolicy):
    """Settings of FBRAC."""

    name: ClassVar[str] = "fbrac"
    sees_frames: ClassVar[bool] = True

    alpha: float = setting(100.0, at_least=0)
    """Weight of flow matching (Table 6)."""
    normalize_q: bool = setting(False)
    """Divide the actor's value by the batch's mean |Q|."""

    def init(self, key: PRNGKeyArray, spec: Spec) -> FBRACState:
        flow_key, critic_key = jax.random.split(key)
        critic = self.init_critic(critic_key, spec)
        flow = self.actor(VectorField, flow_key, spec)
        return FBRACState(flow, self.learner(critic), self.target_part(critic))

    def gradients(
        self, state: FBRACState, batch: Batch, noise: JointNoise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """alpha L_flow - E Q(s, mu(s, z)), and the critics on samples of the same flow."""
        next_actions = self.base(state, batch.next_observations, noise.target)
        critic, critic_metrics = self.critic_gradient(state, batch, next_actions, noise.critic)
        obs = batch.observations
        flow, metrics = gradient_of(through_sampler_loss)(
            state.flow.model,
            lambda field: integrate(field, obs, noise.actor, self.integration_steps, self.solver),
            lambda field: flow_matching_loss(
                field, obs, batch.actions, noise.flow.x0, noise.flow.t, path=self.path
            ),
            lambda actions: self.value(state, obs, actions),
            clone_weight=self.alpha,
            normalize=self.normalize_q,
        )
        return {"critic": critic, "flow": flow}, {**critic_metrics, **metrics}
