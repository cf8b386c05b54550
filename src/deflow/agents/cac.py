"""Consistency-AC: a consistency model clones the behaviour and raises Q through its two steps.

Ding and Jin, "Consistency Models as a Rich and Efficient Policy Class for Reinforcement Learning",
arXiv 2309.16984. Networks and constants are those of the official code (but for how weights are
drawn at first), the switches those of FQL's runs (arXiv 2502.02538, appendix E.2): targets are not
normalised, the consistency loss is scaled, the backup takes the best of several actions, gradients
are cut at a norm of 5. As everywhere in this library all losses see the parameters from before the
step; the official code moves the critics first.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from deflow.agents.shared import Critical, Grads, Rescaled, gradient_of
from deflow.behavior.consistency import (
    ConsistencyModel,
    ConsistencyNoise,
    consistency_loss,
    draw_consistency,
    level_count,
    sample_actions,
)
from deflow.core.agent import Mode, Phase
from deflow.core.settings import setting
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.extraction.backpropagation import through_sampler_loss
from deflow.extraction.best_of import best_of
from deflow.nn.learner import Learner, polyak
from deflow.value.td import Aggregation, Critic, aggregate, td_loss, td_target


class CACState(eqx.Module):
    """All that is learnt, and all that a resumed run needs."""

    actor: Learner[ConsistencyModel]
    ema_actor: ConsistencyModel
    critic: Learner[Critic]
    target_critic: Critic


class CACNoise(NamedTuple):
    """The draws of an update."""

    clone: ConsistencyNoise
    target: Float[Array, "steps samples batch act"]
    actor: Float[Array, "steps batch act"]
    coin: Bool[Array, ""]
    """Which critic the actor raises."""


class ActNoise(NamedTuple):
    """The draws of one action; for several observations each has a leading axis."""

    samples: Float[Array, "*n samples steps act"]
    gumbel: Float[Array, "*n samples"]


class CAC(Rescaled, Critical):
    """Settings of Consistency-AC."""

    name: ClassVar[str] = "cac"

    hidden: tuple[int, ...] = setting((256, 256, 256), at_least=1)
    """Widths of the hidden layers."""
    policy_learning_rate: float = setting(0.0, at_least=0)
    """Adam's rate for the actor, where it is another than the critics'; 0 takes theirs."""
    critic_layer_norm: bool = setting(False)
    """LayerNorm in the critics."""
    target_aggregation: Aggregation = setting("min")
    """How the target takes one value out of the critics."""
    eta: float = setting(1.0, at_least=0)
    """Weight of the actor's value (Table 6)."""
    normalize_q: bool = setting(True)
    """Divide the actor's critic by the other's mean |Q|; the official code always does."""
    normalize_target: bool = setting(False)
    """Divide targets by their deviation over the batch (the official code's `q_norm`)."""
    scale_consistency: bool = setting(True)
    """Weigh the consistency loss by 100 / (t2 - t1)."""
    sampling_steps: int = setting(2, at_least=1)
    """Passes of the model for an action."""
    backup_samples: int = setting(10, at_least=1)
    """Next actions for each target, of which each critic takes its best; 1 for a plain backup."""
    act_samples: int = setting(50, at_least=1)
    """Actions among which one is drawn, by a softmax of their values."""
    curriculum_steps: int = setting(0, at_least=0)
    """Steps after which N(k) begins anew (50000 in the official code's runs); 0 for one ramp."""
    grad_clip: float = setting(5.0, above=0)
    """Norm to which the gradients of actor and critics are cut."""
    ema_decay: float = setting(0.995, at_least=0, below=1)
    """What the averaged actor keeps of itself."""
    ema_every: int = setting(5, at_least=1)
    """Steps between two averagings of the actor."""
    ema_start: int = setting(1000, at_least=0)
    """Steps before the first; until then the averaged actor stays as it began."""

    def init(self, key: PRNGKeyArray, spec: Spec) -> CACState:
        actor_key, critic_key = jax.random.split(key)
        actor = self.actor(ConsistencyModel, actor_key, spec)
        critic = self.init_critic(critic_key, spec)
        return CACState(actor, actor.model, self.learner(critic), critic)

    def init_critic(self, key: PRNGKeyArray, spec: Spec) -> Critic:
        sizes = (spec.observation_dim, spec.action_dim, self.hidden)
        return Critic(*sizes, layer_norm=self.critic_layer_norm, activation=jax.nn.mish, key=key)

    def rule(self, learner: str, done: float | Array = 0.0) -> optax.GradientTransformation:
        own = (learner == "actor") & (self.policy_learning_rate > 0)
        rate = jnp.where(own, self.policy_learning_rate, self.learning_rate)
        return optax.chain(optax.clip_by_global_norm(self.grad_clip), optax.adam(rate))

    def phases(self, spec: Spec, schedule: str) -> tuple[Phase, ...]:
        gradients = partial(CAC.gradients, ramp=self.curriculum_steps or spec.total_steps)
        return (self.phase("joint", spec, spec.total_steps, gradients, CAC.draw_update),)

    def gradients(
        self, state: CACState, batch: Batch, noise: CACNoise, clock: Clock, ramp: int
    ) -> tuple[Grads, Metrics]:
        """L_bc - eta E Q_i / |Q_j| for the actor; targets take the averaged actor's actions."""
        batch = self.rescaled(batch)
        next_actions = sample_actions(state.ema_actor, batch.next_observations, noise.target)
        critic, critic_metrics = self.critic_gradient(state, batch, next_actions)
        obs, count = batch.observations, level_count(clock.step, ramp)

        def clone(model: ConsistencyModel) -> Array:
            data = (obs, batch.actions, noise.clone, count)
            return consistency_loss(model, state.ema_actor, *data, scaled=self.scale_consistency)

        actor, metrics = gradient_of(through_sampler_loss)(
            state.actor.model,
            lambda model: sample_actions(model, obs, noise.actor),
            clone,
            lambda actions: self.raised(state.critic.model(obs, actions), noise.coin),
            clone_weight=1.0,
            value_weight=self.eta,
        )
        return {"actor": actor, "critic": critic}, {**critic_metrics, **metrics}

    def critic_gradient(
        self, state: CACState, batch: Batch, next_actions: Float[Array, "n batch act"]
    ) -> tuple[Any, Metrics]:
        """y = r + gamma mask min_i max over the actions Q'_i(s', a'); a sum of two MSEs."""
        next_q = state.target_critic(batch.next_observations, next_actions).max(1)
        values = aggregate(next_q, self.target_aggregation)
        target = td_target(batch.rewards, batch.masks, values, self.discount)
        if self.normalize_target:
            target /= target.std(ddof=1) + 1e-6
        summed = partial(td_loss, over_ensemble="sum")
        return gradient_of(summed)(state.critic.model, batch.observations, batch.actions, target)

    def raised(self, q: Float[Array, "2 batch"], coin: Bool[Array, ""]) -> Float[Array, " batch"]:
        """The critic that the coin names, in units of the other's mean |Q|."""
        ordered = jnp.where(coin, q, q[::-1])
        scale = jax.lax.stop_gradient(jnp.abs(ordered[1]).mean())
        return ordered[0] / scale if self.normalize_q else ordered[0]

    def averaged(self, state: Any, grads: Grads, clock: Clock) -> dict[str, Any]:
        """The targets, and now and then the averaged actor: a branch on the family's one clock."""
        due = (clock.step >= self.ema_start) & (clock.step % self.ema_every == 0)
        move = partial(polyak, state.ema_actor, state.actor.model, 1 - self.ema_decay)
        ema_actor = jax.lax.cond(due, move, lambda: state.ema_actor)
        return {**super().averaged(state, grads, clock), "ema_actor": ema_actor}

    def draw_update(self, key: PRNGKeyArray, spec: Spec) -> CACNoise:
        keys, steps = jax.random.split(key, 4), self.sampling_steps
        shape = (self.batch_size, spec.action_dim)
        return CACNoise(
            clone=draw_consistency(keys[0], shape),
            target=jax.random.normal(keys[1], (steps, self.backup_samples, *shape)),
            actor=jax.random.normal(keys[2], (steps, *shape)),
            coin=jax.random.bernoulli(keys[3]),
        )

    def draw_act(self, key: PRNGKeyArray, spec: Spec) -> ActNoise:
        samples_key, gumbel_key = jax.random.split(key)
        shape = (self.act_samples, self.sampling_steps, spec.action_dim)
        samples = jax.random.normal(samples_key, shape)
        return ActNoise(samples, jax.random.gumbel(gumbel_key, (self.act_samples,)))

    def act(
        self,
        state: CACState,
        observations: Float[Array, "n obs"],
        noise: ActNoise,
        mode: Mode = "evaluate",
    ) -> Float[Array, "n act"]:
        """One of several samples, drawn by a softmax of the smaller target critic."""
        each = observations[:, None]
        candidates = sample_actions(state.actor.model, each, jnp.moveaxis(noise.samples, -2, 0))
        # The largest of values with Gumbel noise is a draw from their softmax.
        q = state.target_critic(each, candidates).min(0)
        return best_of(candidates, q + noise.gumbel)
