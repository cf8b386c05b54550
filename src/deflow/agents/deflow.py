"""DeFlow: a flow models what the data do, a small residual climbs the critic inside a trust region.

Mu, "DeFlow: Decoupling Manifold Modeling and Value Maximization for Offline Policy Extraction",
arXiv 2601.10471. Defaults behave as the official code in its published runs; where the paper's
text says otherwise, a setting names the difference.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from deflow.behavior.flow import (
    FlowNoise,
    VectorField,
    draw_flow,
    flow_matching_loss,
    integrate,
)
from deflow.core.agent import Agent, Mode, Phase, RowField
from deflow.core.checks import require, require_choices
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.extraction.refinement import (
    MultiplierForm,
    Penalty,
    Reduction,
    Refinement,
    multiplier_loss,
    refine,
    refinement_loss,
)
from deflow.nn.learner import Learner, polyak, squared_norm
from deflow.value.td import Aggregation, Critic, aggregate, td_loss, td_target


class DeFlowState(eqx.Module):
    """All that is learnt, and all that a resumed run needs."""

    flow: Learner[VectorField]
    critic: Learner[Critic]
    target_critic: Critic
    refinement: Learner[Refinement]
    log_alpha: Learner[Float[Array, ""]]


class JointNoise(NamedTuple):
    """The draws of one joint update: base noise for the target's and the actor's proposals."""

    flow: FlowNoise
    target: Float[Array, "batch act"]
    actor: Float[Array, "batch act"]


class CachedNoise(NamedTuple):
    """Which of the cached proposals an update takes, for the target and for the actor."""

    target: Int[Array, " batch"]
    actor: Int[Array, " batch"]


class PolicyGradients(NamedTuple):
    """Gradients of the critic's, the refinement's and the multiplier's losses."""

    critic: Critic
    refinement: Refinement
    log_alpha: Float[Array, ""]


class DeFlow(Agent):
    """Settings of DeFlow. Numeric ones may be swept in one family; the others are static."""

    name: ClassVar[str] = "deflow"

    delta: float = 0.001
    """Trust region: the squared residual allowed, per action dimension (Table 6)."""
    discount: float = 0.99
    """Discount of the return."""
    learning_rate: float = 3e-4
    """Adam's rate, for every network and for the multiplier."""
    tau: float = 0.005
    """Rate of the target critic's averaging."""
    log_alpha_init: float = 1.0
    """Where the multiplier's logarithm starts."""
    fixed_alpha: float = 1.0
    """Weight of the squared residual where `multiplier` is `fixed`."""
    multiplier: Literal["lagrangian", "fixed"] = eqx.field(static=True, default="lagrangian")
    """`lagrangian` learns alpha; `fixed` keeps it (Table 5)."""
    legacy_alpha_squared: bool = eqx.field(static=True, default=False)
    """With `fixed`: weigh by alpha squared, as the official code does by accident."""
    freeze_prior: bool = eqx.field(static=True, default=False)
    """Leave the base flow untouched: no flow-matching loss is computed."""
    target_aggregation: Aggregation = eqx.field(static=True, default="mean")
    """How the target takes one value out of the two critics."""
    normalize_q: bool = eqx.field(static=True, default=True)
    """Divide the actor's value by the batch's mean |Q| (on in all published runs)."""
    residual_reduction: Reduction = eqx.field(static=True, default="mean")
    """Squared residual: `mean` over action dimensions (code) or `sum` (paper's norm)."""
    multiplier_form: MultiplierForm = eqx.field(static=True, default="log")
    """Its loss: `log`, -log(alpha)(L - delta) (code), or `linear`, -alpha(L - delta) (eq. 12)."""
    penalty: Penalty = eqx.field(static=True, default="raw")
    """Penalise the `raw` output (code) or the residual `applied` after clipping."""
    batch_size: int = eqx.field(static=True, default=256)
    """Transitions in an update."""
    integration_steps: int = eqx.field(static=True, default=10)
    """Euler steps from noise to a proposal."""
    proposals: int = eqx.field(static=True, default=4)
    """Flow-first: proposals cached for every state of the dataset."""
    prior_steps: int = eqx.field(static=True, default=0)
    """Flow-first: gradient steps of the flow; 0 takes as many as the policy."""
    hidden: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of the critics' hidden layers, and of the actors' unless `actor_hidden` is given."""
    actor_hidden: tuple[int, ...] = eqx.field(static=True, default=())
    """Widths of the flow's and the refinement's hidden layers, where they differ."""
    critic_layer_norm: bool = eqx.field(static=True, default=True)
    """LayerNorm in the critics."""
    actor_layer_norm: bool = eqx.field(static=True, default=False)
    """LayerNorm in the flow and the refinement."""

    def validate(self) -> None:
        require_choices(self)
        require("delta", self.delta, above=0)
        require("discount", self.discount, above=0, below=1)
        require("learning_rate", self.learning_rate, above=0)
        require("tau", self.tau, above=0, at_most=1)
        require("fixed_alpha", self.fixed_alpha, at_least=0)
        for name in ("batch_size", "integration_steps", "proposals"):
            require(name, getattr(self, name), at_least=1)
        require("prior_steps", self.prior_steps, at_least=0)
        require("log_alpha_init", self.log_alpha_init, at_least=-20, at_most=20)
        for name in ("hidden", "actor_hidden"):
            for width in getattr(self, name):
                require(name, width, at_least=1)

    def init(self, key: PRNGKeyArray, spec: Spec) -> DeFlowState:
        keys = jax.random.split(key, 3)
        obs, act = spec.observation_dim, spec.action_dim
        widths, norm = self.actor_hidden or self.hidden, self.actor_layer_norm
        flow = VectorField(obs, act, widths, layer_norm=norm, key=keys[0])
        critic = Critic(obs, act, self.hidden, layer_norm=self.critic_layer_norm, key=keys[1])
        refinement = Refinement(obs, act, widths, layer_norm=norm, key=keys[2])
        log_alpha = jnp.asarray(self.log_alpha_init, jnp.float32)
        return DeFlowState(
            flow=Learner.create(flow, self._adam),
            critic=Learner.create(critic, self._adam),
            target_critic=critic,
            refinement=Learner.create(refinement, self._adam),
            log_alpha=Learner.create(log_alpha, self._adam),
        )

    def phases(self, spec: Spec, schedule: str) -> tuple[Phase, ...]:
        if schedule == "joint":
            draw = lambda agent, key: agent.draw_joint(key, spec)  # noqa: E731
            return (Phase("joint", spec.total_steps, self.batch_size, draw, DeFlow.update_joint),)
        cache = RowField(
            "proposals",
            draw=lambda agent, key, n: agent.draw_cache(key, n, spec),
            compute=DeFlow.cache_proposals,
        )
        flow = Phase(
            "flow",
            self.prior_steps or spec.total_steps,
            self.batch_size,
            lambda agent, key: draw_flow(key, (agent.batch_size, spec.action_dim)),
            DeFlow.update_flow,
            leaves=(cache,),
            graft=lambda state, donor: eqx.tree_at(lambda s: s.flow, state, donor.flow),
        )
        policy = Phase(
            "policy",
            spec.total_steps,
            self.batch_size,
            lambda agent, key: agent.draw_cached(key),
            DeFlow.update_cached,
            fields=("proposals",),
        )
        return (flow, policy)

    # Updates ---------------------------------------------------------------------------------

    def update_joint(
        self, state: DeFlowState, batch: Batch, noise: JointNoise, clock: Clock
    ) -> tuple[DeFlowState, Metrics]:
        """Algorithm 1: flow, critic, refinement and multiplier in one step.

        Both sets of proposals come from the flow before its step, in one integration.
        """
        both = jnp.concatenate([batch.next_observations, batch.observations])
        x0 = jnp.concatenate([noise.target, noise.actor])
        next_base, base = jnp.split(self._proposals(state, both, x0), 2)
        new, metrics = self._update_policy(state, batch, next_base, base)
        if self.freeze_prior:
            return new, metrics
        prior, flow_metrics = self.update_flow(state, batch, noise.flow, clock)
        return eqx.tree_at(lambda s: s.flow, new, prior.flow), {**metrics, **flow_metrics}

    def update_flow(
        self, state: DeFlowState, batch: Batch, noise: FlowNoise, clock: Clock
    ) -> tuple[DeFlowState, Metrics]:
        """One step of behaviour cloning by flow matching: no value is involved."""
        grads, metrics = self.flow_gradients(state, batch, noise)
        flow = state.flow.step(grads, self._adam)
        return eqx.tree_at(lambda s: s.flow, state, flow), metrics

    def update_cached(
        self, state: DeFlowState, batch: Batch, noise: CachedNoise, clock: Clock
    ) -> tuple[DeFlowState, Metrics]:
        """Critic, refinement and multiplier, on proposals that a finished flow left in the data."""
        rows = jnp.arange(noise.target.shape[0])
        next_base = batch.fields["next_proposals"][rows, noise.target]
        base = batch.fields["proposals"][rows, noise.actor]
        return self._update_policy(state, batch, next_base, base)

    def _update_policy(
        self, state: DeFlowState, batch: Batch, next_base: Array, base: Array
    ) -> tuple[DeFlowState, Metrics]:
        grads, metrics = self.policy_gradients(state, batch, next_base, base)
        log_alpha = state.log_alpha
        if self.multiplier == "lagrangian":
            log_alpha = log_alpha.step(grads.log_alpha, self._adam)
        new = DeFlowState(
            flow=state.flow,
            critic=state.critic.step(grads.critic, self._adam),
            # The average takes the parameters before this step, as the official code does.
            target_critic=polyak(state.target_critic, state.critic.model, self.tau),
            refinement=state.refinement.step(grads.refinement, self._adam),
            log_alpha=log_alpha,
        )
        return new, metrics

    # Losses ----------------------------------------------------------------------------------

    def flow_gradients(
        self, state: DeFlowState, batch: Batch, noise: FlowNoise
    ) -> tuple[VectorField, Metrics]:
        loss, grads = eqx.filter_value_and_grad(flow_matching_loss)(
            state.flow.model, batch.observations, batch.actions, noise.x0, noise.t
        )
        return grads, {"flow/loss": loss, "flow/grad_norm": squared_norm(grads) ** 0.5}

    def policy_gradients(
        self, state: DeFlowState, batch: Batch, next_base: Array, base: Array
    ) -> tuple[PolicyGradients, Metrics]:
        """Gradients and metrics of every loss but the flow's; proposals are [batch, act]."""
        critic, critic_metrics = eqx.filter_grad(td_loss, has_aux=True)(
            state.critic.model,
            batch.observations,
            batch.actions,
            self._target(state, batch, next_base),
        )
        refinement, actor_metrics = eqx.filter_grad(refinement_loss, has_aux=True)(
            state.refinement.model,
            lambda observations, actions: self.value(state, observations, actions),
            batch.observations,
            base,
            self._alpha(state),
            normalize=self.normalize_q,
            reduction=self.residual_reduction,
            penalty=self.penalty,
        )
        alpha_loss, log_alpha = jax.value_and_grad(multiplier_loss)(
            state.log_alpha.model,
            actor_metrics["actor/squared_residual"],
            self.delta,
            self.multiplier_form,
        )
        metrics = {
            **critic_metrics,
            **actor_metrics,
            "actor/delta": jnp.asarray(self.delta),
            "critic/grad_norm": squared_norm(critic) ** 0.5,
            "actor/grad_norm": squared_norm(refinement) ** 0.5,
        }
        if self.multiplier == "lagrangian":
            metrics["actor/alpha_loss"] = alpha_loss
        return PolicyGradients(critic, refinement, log_alpha), metrics

    def _target(self, state: DeFlowState, batch: Batch, next_base: Array) -> Float[Array, " batch"]:
        """y = r + gamma mask Q'(s', a'), with a' of the refined policy."""
        next_obs = batch.next_observations
        next_actions = refine(next_base, state.refinement.model(next_obs, next_base))
        next_q = aggregate(state.target_critic(next_obs, next_actions), self.target_aggregation)
        return td_target(batch.rewards, batch.masks, next_q, self.discount)

    def _alpha(self, state: DeFlowState) -> Float[Array, ""]:
        if self.multiplier == "lagrangian":
            return jnp.exp(state.log_alpha.model)
        return jnp.asarray(self.fixed_alpha**2 if self.legacy_alpha_squared else self.fixed_alpha)

    @property
    def _adam(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)

    # Acting ----------------------------------------------------------------------------------

    def act(
        self,
        state: DeFlowState,
        observations: Float[Array, "n obs"],
        noise: Float[Array, "n act"],
        mode: Mode = "evaluate",
    ) -> Float[Array, "n act"]:
        """A refined proposal; one stochastic sample in either mode."""
        base = self._proposals(state, observations, noise)
        return refine(base, state.refinement.model(observations, base))

    def propose(
        self, state: DeFlowState, observations: Float[Array, "n obs"], noise: Float[Array, "n act"]
    ) -> Float[Array, "n act"]:
        """What the base flow alone would do."""
        return self._proposals(state, observations, noise)

    def value(
        self,
        state: DeFlowState,
        observations: Float[Array, "n obs"],
        actions: Float[Array, "n act"],
    ) -> Float[Array, " n"]:
        """The critics' mean."""
        return state.critic.model(observations, actions).mean(0)

    def cache_proposals(
        self,
        state: DeFlowState,
        observations: Float[Array, "n obs"],
        noise: Float[Array, "n proposals act"],
    ) -> Float[Array, "n proposals act"]:
        """Proposals for every row, for the flow-first schedule's second phase."""
        repeated = jnp.broadcast_to(
            observations[:, None], (*noise.shape[:2], observations.shape[-1])
        )
        return self._proposals(state, repeated, noise)

    def _proposals(self, state: DeFlowState, observations: Array, x0: Array) -> Array:
        base = integrate(state.flow.model, observations, x0, self.integration_steps)
        return jax.lax.stop_gradient(base)

    # Randomness ------------------------------------------------------------------------------

    def draw_joint(self, key: PRNGKeyArray, spec: Spec) -> JointNoise:
        flow_key, target_key, actor_key = jax.random.split(key, 3)
        shape = (self.batch_size, spec.action_dim)
        return JointNoise(
            flow=draw_flow(flow_key, shape),
            target=jax.random.normal(target_key, shape),
            actor=jax.random.normal(actor_key, shape),
        )

    def draw_cached(self, key: PRNGKeyArray) -> CachedNoise:
        target, actor = jax.random.randint(key, (2, self.batch_size), 0, self.proposals)
        return CachedNoise(target, actor)

    def draw_cache(self, key: PRNGKeyArray, rows: int, spec: Spec) -> Float[Array, "n k act"]:
        return jax.random.normal(key, (rows, self.proposals, spec.action_dim))

    def draw_act(self, key: PRNGKeyArray, spec: Spec) -> Float[Array, " act"]:
        return jax.random.normal(key, (spec.action_dim,))
