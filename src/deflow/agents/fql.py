"""FQL: a flow clones the behaviour, a one-step policy is distilled from it and raises Q.

Park, Li, Levine, "Flow Q-Learning", arXiv 2502.02538. Defaults are those of the official code's
published runs.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from deflow.agents.shared import FlowPolicy, Grads, JointNoise, gradient_of
from deflow.behavior.flow import VectorField
from deflow.core.settings import setting
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.extraction.distillation import OneStep, distillation_loss
from deflow.nn.encoder import opened
from deflow.nn.learner import Learner


class FQLState(eqx.Module):
    """All that is learnt, and all that a resumed run needs."""

    flow: Learner[VectorField]
    critic: Learner[Any]
    target_critic: Any
    one_step: Learner[OneStep]


class FQL(FlowPolicy):
    """Settings of FQL."""

    name: ClassVar[str] = "fql"
    sees_frames: ClassVar[bool] = True

    alpha: float = setting(10.0, at_least=0)
    """Weight of the distillation (Table 6); the code's, a mean over the action's dimensions."""
    normalize_q: bool = setting(False)
    """Divide the actor's value by the batch's mean |Q|."""

    def init(self, key: PRNGKeyArray, spec: Spec) -> FQLState:
        keys = jax.random.split(key, 3)
        critic = self.init_critic(keys[1], spec)
        return FQLState(
            flow=self.actor(VectorField, keys[0], spec),
            critic=self.learner(critic),
            target_critic=self.target_part(critic),
            one_step=self.actor(OneStep, keys[2], spec),
        )

    def gradients(
        self, state: FQLState, batch: Batch, noise: JointNoise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """Algorithm 1: critic (eq. 3), flow (eq. 4) and one-step policy (eq. 9)."""
        next_actions = self.sample(state, batch.next_observations, noise.target)
        critic, critic_metrics = self.critic_gradient(state, batch, next_actions, noise.critic)
        flow, flow_metrics = self.flow_gradient(state, batch, noise.flow)
        one_step, metrics = gradient_of(distillation_loss)(
            state.one_step.model,
            lambda observations, actions: self.value(state, observations, actions),
            batch.observations,
            noise.actor,
            self.base(state, batch.observations, noise.actor),
            self.alpha,
            normalize=self.normalize_q,
        )
        grads = {"critic": critic, "flow": flow, "one_step": one_step}
        return grads, {**critic_metrics, **flow_metrics, **metrics}

    def sample(self, state: FQLState, observations: Array, x0: Array) -> Array:
        """One pass of the one-step policy."""
        one_step, observations = opened(state.one_step.model, observations)
        observations = jnp.broadcast_to(observations, (*x0.shape[:-1], observations.shape[-1]))
        return jnp.clip(one_step(observations, x0), -1, 1)
