"""floq, FQL with a flow critic, and DeFlow + floq, DeFlow with the same.

Agrawalla et al., "floq", arXiv 2509.06863; DeFlow (arXiv 2601.10471), Table 3. Neither adds an
update rule: the flow critic takes the place of the ensemble, and the rest stays as it was.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.agents.deflow import DeFlow
from deflow.agents.fql import FQL
from deflow.agents.shared import Bootstrapped, gradient_of
from deflow.core.settings import setting
from deflow.core.types import Batch, Metrics, Spec
from deflow.nn.mlp import Ensemble
from deflow.value.flow_critic import (
    BINS,
    FlowCritic,
    ReturnFlow,
    ReturnNoise,
    flow_critic_loss,
    starts,
)
from deflow.value.td import aggregate, beside, td_target


class FlowValued(Bootstrapped):
    """An agent whose critic is a flow over returns, with a distilled critic for its actor."""

    sees_frames: ClassVar[bool] = False

    critic_steps: int = setting(8, at_least=1)
    """Euler steps from noise to a return."""
    noise_samples: int = setting(8, at_least=1)
    """Noises, each with a next action of its own, for every transition."""
    noise_coverage: float = setting(0.1, above=0, at_most=1)
    """The part of the range of returns over which flows start."""
    critic_depth: int = setting(4, at_least=1)
    """Hidden layers of the flow (floq's cubes take 2); their width is the first of `hidden`."""

    def init_critic(self, key: PRNGKeyArray, spec: Spec) -> FlowCritic:
        flow_key, distilled_key = jax.random.split(key)
        size = spec.observation_dim + spec.action_dim + BINS + 1
        widths = self.hidden[:1] * self.critic_depth
        nets = Ensemble(2, size, 1, widths, layer_norm=self.critic_layer_norm, key=flow_key)
        # The official code reads the range from a padded buffer, so that 0 always belongs to it.
        low, high = spec.reward_range
        return FlowCritic(
            ReturnFlow(nets, (min(low, 0.0), max(high, 0.0))),
            super().init_critic(distilled_key, spec),
        )

    def target_part(self, critic: FlowCritic) -> ReturnFlow:
        """Only the flow has a target network."""
        return critic.returns

    @property
    def target_samples(self) -> tuple[int, ...]:
        return (self.noise_samples,)

    def draw_critic(self, key: PRNGKeyArray, spec: Spec) -> ReturnNoise:
        shape = (3, self.noise_samples, self.batch_size)
        return ReturnNoise(*jax.random.uniform(key, shape))

    def critic_gradient(
        self,
        state: Any,
        batch: Batch,
        next_actions: Float[Array, "samples batch act"],
        noise: ReturnNoise,
    ) -> tuple[FlowCritic, Metrics]:
        """y, the mean over noises of r + gamma mask z, with z of the target flow at (s', a')."""
        flow: ReturnFlow = state.target_critic
        inputs = beside(batch.next_observations, next_actions)

        def begin(uniform: Array) -> Array:
            return starts(uniform, flow.reward_range, self.discount, self.noise_coverage)

        returns = flow.integrate(inputs, begin(noise.target), self.critic_steps, self.discount)
        next_q = aggregate(returns, self.target_aggregation).mean(0)
        return gradient_of(flow_critic_loss)(
            state.critic.model,
            batch.observations,
            batch.actions,
            td_target(batch.rewards, batch.masks, next_q, self.discount),
            begin(noise.start),
            noise.time,
            self.discount,
            self.critic_steps,
        )


class Floq(FlowValued, FQL):
    """Settings of floq."""

    name: ClassVar[str] = "floq"


class DeFlowFloq(FlowValued, DeFlow):
    """Settings of DeFlow + floq."""

    name: ClassVar[str] = "deflow-floq"
