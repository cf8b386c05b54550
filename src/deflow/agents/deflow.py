"""DeFlow: a flow models what the data do, a small residual climbs the critic inside a trust region.

Mu, "DeFlow: Decoupling Manifold Modeling and Value Maximization for Offline Policy Extraction",
arXiv 2601.10471. Defaults behave as the official code in its published runs; where the paper's
text says otherwise, a setting names the difference.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.agents.shared import (
    CachedNoise,
    FlowPolicy,
    Grads,
    JointNoise,
    cached_proposals,
    draw_cached,
    drawn_proposals,
    gradient_of,
    share_flow,
)
from deflow.behavior.flow import VectorField
from deflow.core.agent import Noise, Phase
from deflow.core.settings import setting
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.extraction.multiplier import MultiplierForm, multiplier_loss
from deflow.extraction.refinement import (
    Penalty,
    Reduction,
    Refinement,
    Sees,
    refine,
    refinement_loss,
    residual,
)
from deflow.nn.learner import Learner


class DeFlowState(eqx.Module):
    """All that is learnt, and all that a resumed run needs."""

    flow: Learner[VectorField]
    critic: Learner[Any]
    target_critic: Any
    refinement: Learner[Refinement]
    log_alpha: Learner[Float[Array, ""]]


class DeFlow(FlowPolicy):
    """Settings of DeFlow. Numeric ones may be swept in one family; the others are static."""

    name: ClassVar[str] = "deflow"
    sees_frames: ClassVar[bool] = True
    schedules: ClassVar[tuple[str, ...]] = ("joint", "flow-first")

    delta: float = setting(0.001, above=0)
    """Trust region: the squared residual allowed, per action dimension (Table 6); in all, where
    `residual_reduction` is `sum`."""
    log_alpha_init: float = setting(1.0, at_least=-20, at_most=20)
    """Where the multiplier's logarithm starts."""
    fixed_alpha: float = setting(0.0, at_least=0)
    """Keep the multiplier at this value (Table 5); 0 learns it. A family may hold both."""
    legacy_alpha_squared: bool = setting(False)
    """With `fixed_alpha`: weigh by its square, as the official code does by accident."""
    prior_online: Literal["learns", "frozen", "coasting"] = setting("learns")
    """The base flow online: it `learns`; it is `frozen`, and its loss is not computed; or it is
    `coasting`, without a gradient, on Adam's momentum for a while (code)."""
    normalize_q: bool = setting(True)
    """Divide the actor's value by the batch's mean |Q| (on in all published runs)."""
    residual_reduction: Reduction = setting("mean")
    """Squared residual: `mean` over action dimensions (code) or `sum` (paper's norm)."""
    multiplier_form: MultiplierForm = setting("log")
    """Its loss: `log`, -log(alpha)(L - delta) (code), or `linear`, -alpha(L - delta) (eq. 12)."""
    penalty: Penalty = setting("raw")
    """Penalise the `raw` output (code) or the residual `applied` after clipping."""
    residual_sees: Sees = setting("state-action")
    """What the residual is conditioned on; `state` alone is an ablation."""
    proposals: int = setting(4, at_least=1)
    """Flow-first: proposals cached for every state of the dataset."""
    prior_steps: int = setting(0, at_least=0)
    """Flow-first: gradient steps of the flow; 0 takes as many as the policy."""

    def init(self, key: PRNGKeyArray, spec: Spec) -> DeFlowState:
        keys = jax.random.split(key, 3)
        critic = self.init_critic(keys[1], spec)
        return DeFlowState(
            flow=self.actor(VectorField, keys[0], spec),
            critic=self.learner(critic),
            target_critic=self.target_part(critic),
            refinement=self.actor(Refinement, keys[2], spec),
            log_alpha=self.learner(jnp.asarray(self.log_alpha_init, jnp.float32)),
        )

    def phases(self, spec: Spec, schedule: str) -> tuple[Phase, ...]:
        if schedule == "joint":
            return super().phases(spec, schedule)
        leaves = (cached_proposals(self.proposals, spec),)
        steps = self.prior_steps or spec.total_steps
        flow = self.flow_phase(spec, steps, leaves=leaves, graft=share_flow)
        learn, draw = type(self).cached_gradients, partial(draw_cached, count=self.proposals)
        fields = ("proposals",)
        policy = self.phase("policy", spec, spec.total_steps, learn, draw, fields=fields)
        return (flow, policy)

    # Gradients -------------------------------------------------------------------------------

    def gradients(
        self, state: DeFlowState, batch: Batch, noise: JointNoise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """Algorithm 1: flow, critic, refinement and multiplier in one step."""
        proposed = self.proposed(state, batch, noise)
        grads, metrics = self.policy_gradients(state, batch, *proposed, noise.critic)
        flow, flow_metrics = self.flow_gradient(state, batch, noise.flow)
        return {**grads, "flow": flow}, {**metrics, **flow_metrics}

    def online_gradients(
        self, state: DeFlowState, batch: Batch, noise: JointNoise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """The same, unless the prior is kept."""
        if self.prior_online == "learns":
            return self.gradients(state, batch, noise, clock)
        proposed = self.proposed(state, batch, noise)
        grads, metrics = self.policy_gradients(state, batch, *proposed, noise.critic)
        if self.prior_online == "frozen":
            return grads, metrics
        still = jax.tree.map(jnp.zeros_like, eqx.filter(state.flow.model, eqx.is_array))
        return {**grads, "flow": still}, metrics

    def cached_gradients(
        self, state: DeFlowState, batch: Batch, noise: CachedNoise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """The same without the flow, on proposals that the finished flow left in the data."""
        proposed = drawn_proposals(batch, noise)
        return self.policy_gradients(state, batch, *proposed, noise.critic)

    def policy_gradients(
        self, state: DeFlowState, batch: Batch, next_base: Array, base: Array, noise: Noise
    ) -> tuple[Grads, Metrics]:
        """Every loss but the flow's; proposals are [batch, act], for s' perhaps several."""
        next_actions = self.refined(state, batch.next_observations, next_base)
        critic, critic_metrics = self.critic_gradient(state, batch, next_actions, noise)
        refinement, metrics = gradient_of(refinement_loss)(
            state.refinement.model,
            lambda observations, actions: self.value(state, observations, actions),
            batch.observations,
            base,
            self.alpha(state),
            normalize=self.normalize_q,
            reduction=self.residual_reduction,
            penalty=self.penalty,
            sees=self.residual_sees,
        )
        grads = {"critic": critic, "refinement": refinement}
        alpha_loss, grads["log_alpha"] = jax.value_and_grad(self.alpha_loss)(
            state.log_alpha.model, metrics["actor/squared_residual"]
        )
        found = {"actor/alpha_loss": alpha_loss, "actor/delta": jnp.asarray(self.delta)}
        return grads, {**critic_metrics, **metrics, **found}

    def alpha(self, state: DeFlowState) -> Float[Array, ""]:
        """Weight of the squared residual."""
        kept = self.fixed_alpha**2 if self.legacy_alpha_squared else self.fixed_alpha
        return jnp.where(self.fixed_alpha > 0, kept, jnp.exp(state.log_alpha.model))

    def alpha_loss(self, log_alpha: Array, squared: Array) -> Float[Array, ""]:
        """The multiplier's loss: none where it is kept, so that nothing moves it."""
        loss = multiplier_loss(log_alpha, squared, self.delta, self.multiplier_form)
        return jnp.where(self.fixed_alpha > 0, 0.0, loss)

    # Acting ----------------------------------------------------------------------------------

    def sample(self, state: DeFlowState, observations: Array, x0: Array) -> Array:
        return self.refined(state, observations, self.base(state, observations, x0))

    def refined(self, state: DeFlowState, observations: Array, base: Array) -> Array:
        """Proposals with their residuals, kept in the box."""
        return refine(
            base, residual(state.refinement.model, observations, base, self.residual_sees)
        )
