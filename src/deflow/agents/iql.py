"""IQL: V is an expectile of Q over the data's actions, and good actions are cloned harder.

Kostrikov et al., "Offline Reinforcement Learning with Implicit Q-Learning", arXiv 2110.06169, as in
FQL's official code: unit deviation, no squashing, one rate, advantages by the online critics.
"""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.agents.shared import Continuing, Grads, Implicit, gradient_of
from deflow.behavior.gaussian import Mean, log_prob
from deflow.core.agent import Mode, Noise, Phase
from deflow.core.settings import setting
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.extraction.weighting import advantage_weights
from deflow.nn.learner import Learner
from deflow.value.expectile import StateValue
from deflow.value.td import Critic


class IQLState(eqx.Module):
    """All that is learnt, and all that a resumed run needs."""

    critic: Learner[Critic]
    target_critic: Critic
    value: Learner[StateValue]
    actor: Learner[Mean]


class IQL(Continuing, Implicit):
    """Settings of IQL."""

    name: ClassVar[str] = "iql"
    sees_frames: ClassVar[bool] = True

    alpha: float = setting(10.0, at_least=0)
    """Inverse temperature of the advantage weights (Table 6)."""

    def init(self, key: PRNGKeyArray, spec: Spec) -> IQLState:
        keys = jax.random.split(key, 3)
        critic = self.init_critic(keys[0], spec)
        return IQLState(
            critic=self.learner(critic),
            target_critic=critic,
            value=self.learner(self.init_value(keys[1], spec)),
            actor=self.actor(Mean, keys[2], spec),
        )

    def learning(self, name: str, spec: Spec, steps: int) -> Phase:
        return self.phase(name, spec, steps, IQL.gradients)

    def gradients(
        self, state: IQLState, batch: Batch, noise: Noise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """Value and critic (eq. 5, 6), and the actor (eq. 7)."""
        grads, metrics = self.value_gradients(state, batch, noise, clock)
        actor, actor_metrics = gradient_of(self.actor_loss)(state.actor.model, state, batch)
        return {**grads, "actor": actor}, {**metrics, **actor_metrics}

    def actor_loss(self, actor: Mean, state: IQLState, batch: Batch) -> tuple[Array, Metrics]:
        """-E min(exp(alpha (Q - V)), 100) log pi(a | s)."""
        means = actor(batch.observations)
        log_probs = log_prob(means, batch.actions)
        q = state.critic.model(batch.observations, batch.actions).min(0)
        advantages = q - state.value.model(batch.observations)
        loss = -(advantage_weights(advantages, self.alpha) * log_probs).mean()
        return loss, {
            "actor/loss": loss,
            "actor/advantage": advantages.mean(),
            "actor/log_prob": log_probs.mean(),
            "actor/mse": jnp.square(means - batch.actions).mean(),
        }

    def draw_act(self, key: PRNGKeyArray, spec: Spec) -> Float[Array, " act"]:
        return jax.random.normal(key, (spec.action_dim,))

    def act(
        self,
        state: IQLState,
        observations: Float[Array, "n obs"],
        noise: Noise,
        mode: Mode = "evaluate",
    ) -> Float[Array, "n act"]:
        """The mean; exploring, a sample of unit deviation."""
        means = state.actor.model(observations)
        return jnp.clip(means + noise if mode == "explore" else means, -1, 1)
