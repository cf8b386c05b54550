"""FAWAC: the flow clones better actions harder.

A baseline of FQL (arXiv 2502.02538, eq. 10), whose authors released no code. The equation prints
max where only min(exp(.), 100) makes sense. What V(s) is, they do not say: the default here is a
**derivation**, AWAC's own choice (arXiv 2006.09359), the mean critic of one fresh action of the
flow; `learnt` regresses a network to the target critics at the data's actions, as in QAM's code.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from deflow.agents.shared import FlowPolicy, Grads, JointNoise, gradient_of
from deflow.behavior.flow import VectorField
from deflow.core.settings import setting
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.extraction.weighting import advantage_weights
from deflow.nn.learner import Learner
from deflow.value.expectile import StateValue, expectile_loss
from deflow.value.td import aggregate


class FAWACState(eqx.Module):
    """All that is learnt, and all that a resumed run needs."""

    flow: Learner[VectorField]
    critic: Learner[Any]
    target_critic: Any
    state_value: Learner[StateValue] | None
    """Where the baseline is learnt."""


class FAWAC(FlowPolicy):
    """Settings of FAWAC."""

    name: ClassVar[str] = "fawac"

    alpha: float = setting(1.0, at_least=0)
    """Inverse temperature of the advantage weights (Table 6)."""
    baseline: Literal["policy", "learnt"] = setting("policy")
    """V(s): the critics at an action of the `policy` (AWAC), or a `learnt` network (QAM)."""

    def init(self, key: PRNGKeyArray, spec: Spec) -> FAWACState:
        keys = jax.random.split(key, 3)
        critic = self.init_critic(keys[1], spec)
        value = None
        if self.baseline == "learnt":
            norm = self.critic_layer_norm
            value = self.learner(
                StateValue(spec.observation_dim, self.hidden, layer_norm=norm, key=keys[2])
            )
        return FAWACState(
            flow=self.actor(VectorField, keys[0], spec),
            critic=self.learner(critic),
            target_critic=self.target_part(critic),
            state_value=value,
        )

    def gradients(
        self, state: FAWACState, batch: Batch, noise: JointNoise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """The critics on actions of the flow, and flow matching weighted by advantages."""
        next_actions = self.base(state, batch.next_observations, noise.target)
        critic, metrics = self.critic_gradient(state, batch, next_actions, noise.critic)
        grads: dict[str, Any] = {"critic": critic}
        if state.state_value is not None:
            # At an expectile of one half: half the mean square.
            q = state.target_critic(batch.observations, batch.actions)
            grads["state_value"], more = gradient_of(expectile_loss)(
                state.state_value.model, batch.observations, aggregate(q, "mean"), 0.5
            )
            metrics = {**metrics, **more}
        q = self.value(state, batch.observations, batch.actions)
        advantages = q - self.baseline_value(state, batch, noise.actor)
        weights = advantage_weights(advantages, self.alpha)
        grads["flow"], more = self.flow_gradient(state, batch, noise.flow, weights)
        found = {"actor/advantage": advantages.mean(), "actor/weight": jnp.mean(weights)}
        return grads, {**metrics, **more, **found}

    def baseline_value(self, state: FAWACState, batch: Batch, x0: Array) -> Array:
        """V(s)."""
        if state.state_value is not None:
            return state.state_value.model(batch.observations)
        actions = self.base(state, batch.observations, x0)
        return self.value(state, batch.observations, actions)
