"""BC: the mean action of each state, by maximum likelihood under a Gaussian of unit deviation.

As the baseline of FQL (arXiv 2502.02538, appendix E.2), from which no code was released; it acts
by its mean.
"""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.agents.shared import Grads, Trained, gradient_of
from deflow.behavior.gaussian import Mean, log_prob
from deflow.core.agent import Mode, Noise, Phase
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.nn.learner import Learner


class BCState(eqx.Module):
    """All that is learnt."""

    actor: Learner[Mean]


class BC(Trained):
    """Settings of BC."""

    name: ClassVar[str] = "bc"
    sees_frames: ClassVar[bool] = True

    def init(self, key: PRNGKeyArray, spec: Spec) -> BCState:
        return BCState(self.actor(Mean, key, spec))

    def phases(self, spec: Spec, schedule: str) -> tuple[Phase, ...]:
        return (self.phase("joint", spec, spec.total_steps, BC.gradients),)

    def gradients(
        self, state: BCState, batch: Batch, noise: Noise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """-E log N(a; mu(s), I)."""

        def loss(actor: Mean) -> tuple[Array, Metrics]:
            means = actor(batch.observations)
            loss = -log_prob(means, batch.actions).mean()
            return loss, {"actor/loss": loss, "actor/mse": jnp.square(means - batch.actions).mean()}

        actor, metrics = gradient_of(loss)(state.actor.model)
        return {"actor": actor}, metrics

    def draw_act(self, key: PRNGKeyArray, spec: Spec) -> Noise:
        return ()

    def act(
        self,
        state: BCState,
        observations: Float[Array, "n obs"],
        noise: Noise,
        mode: Mode = "evaluate",
    ) -> Float[Array, "n act"]:
        """The mean, kept in the box."""
        return jnp.clip(state.actor.model(observations), -1, 1)
