"""Cal-QL: conservative critics, calibrated by returns that were had, ready to go on online.

Nakamoto et al., "Cal-QL: Calibrated Offline RL Pre-Training for Efficient Online Fine-Tuning",
arXiv 2303.05479, as in the official code, but for three habits of this library: networks are of
FQL's size (arXiv 2502.02538, appendix E.2), targets average the parameters from before a step, and
online an update follows each step, where the official code updates at each episode's end.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.agents.sac import SAC, SACState
from deflow.agents.shared import Grads, Rescaled, gradient_of
from deflow.behavior.squashed import ScaledSquashed, Squashed
from deflow.core.agent import ONLINE, Online, Phase
from deflow.core.settings import setting
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.extraction.multiplier import MultiplierForm
from deflow.nn.learner import Learner
from deflow.nn.orthogonal import orthogonal
from deflow.value.conservative import Candidates, conservative_loss, learnt_weight, weight_loss
from deflow.value.td import Aggregation, Critic, td_target


class CalQLState(SACState):
    """All that is learnt, and all that a resumed run needs."""

    log_weight: Learner[Float[Array, ""]] | None
    """Of the push-down, where it is learnt."""


class CalQLNoise(NamedTuple):
    """The draws of an update: uniform in the box where so named, else standard normal."""

    target: Float[Array, "some batch act"]
    """Of the target's next actions."""
    actor: Float[Array, "batch act"]
    """Of the actions of the actor's loss."""
    uniform: Float[Array, "some batch act"]
    here: Float[Array, "some batch act"]
    """Of the policy's actions at s, to be pushed down."""
    ahead: Float[Array, "some batch act"]
    """Of those at s', to be pushed down at s."""


class CalQL(Rescaled, SAC):
    """Settings of Cal-QL."""

    name: ClassVar[str] = "calql"
    needs_data: ClassVar[bool] = True
    schedules: ClassVar[tuple[str, ...]] = ("joint",)
    temperature_form: ClassVar[MultiplierForm] = "log"

    learning_rate: float = setting(3e-4, above=0)
    """Adam's rate, for the critics and the weight of the push-down."""
    policy_learning_rate: float = setting(1e-4, above=0)
    """Adam's rate, for the actor and the temperature."""
    hidden: tuple[int, ...] = setting((512, 512, 512, 512), at_least=1)
    """Widths of the hidden layers."""
    target_aggregation: Aggregation = setting("min")
    """How the target takes one value out of the critics, before the best of its actions."""
    entropy_backup: bool = setting(False)
    """The entropy of the next action belongs to its value."""
    target_entropy_multiplier: float = setting(1.0, at_least=0)
    """The entropy that the temperature holds, below zero, by action dimension."""
    random_steps: int = setting(0, at_least=0)
    """Steps at the beginning with uniform actions, in which nothing is learnt."""
    alpha: float = setting(5.0, at_least=0)
    """Weight of the push-down; with `lagrange` a factor of the learnt one."""
    lagrange: bool = setting(False)
    """Learn the weight, so that values off the data exceed the data's by `gap`."""
    gap: float = setting(0.8, at_least=-1e6, at_most=1e6)
    """That excess (beta of FQL's tables)."""
    samples: int = setting(10, at_least=1)
    """Actions of each kind that are pushed down, and next actions of which the best is taken."""

    def init(self, key: PRNGKeyArray, spec: Spec) -> CalQLState:
        begun = super().init(key, spec)
        log_weight = self.learner(jnp.ones(())) if self.lagrange else None
        return CalQLState(**vars(begun), log_weight=log_weight)

    def init_critic(self, key: PRNGKeyArray, spec: Spec) -> Critic:
        sizes, norm = (spec.observation_dim, spec.action_dim, self.hidden), self.critic_layer_norm
        critic = Critic(*sizes, layer_norm=norm, activation=jax.nn.relu, key=key)
        return orthogonal(critic, key)

    def init_actor(self, key: PRNGKeyArray, spec: Spec) -> Learner[Squashed]:
        return self.learner(orthogonal(self.actor(ScaledSquashed, key, spec).model, key))

    def rule(
        self, learner: str, done: float | Float[Array, ""] = 0.0
    ) -> optax.GradientTransformation:
        slow = learner in ("actor", "log_temperature")
        return optax.adam(self.policy_learning_rate if slow else self.learning_rate)

    def phases(self, spec: Spec, schedule: str) -> tuple[Phase, ...]:
        return (self.learning("joint", spec, spec.total_steps, fields=("returns",)),)

    def online(self, spec: Spec, steps: int) -> Online:
        phase = self.learning(ONLINE, spec, steps, fields=("returns",))
        return Online(phase, balanced=True, random_steps=self.random_steps)

    def column_settings(self, name: str) -> dict[str, float]:
        """Returns are discounted sums of the rewards that the critics see."""
        if name != "returns":
            return super().column_settings(name)
        return {"discount": self.discount, "scale": self.reward_scale, "bias": self.reward_bias}

    def draw_update(self, key: PRNGKeyArray, spec: Spec) -> CalQLNoise:
        normal_key, actor_key, uniform_key = jax.random.split(key, 3)
        one = (self.batch_size, spec.action_dim)
        target, here, ahead = jax.random.normal(normal_key, (3, self.samples, *one))
        uniform = jax.random.uniform(uniform_key, (self.samples, *one), minval=-1)
        return CalQLNoise(target, jax.random.normal(actor_key, one), uniform, here, ahead)

    # Gradients -------------------------------------------------------------------------------

    def gradients(
        self, state: CalQLState, batch: Batch, noise: CalQLNoise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """SAC's, with rewards as the returns have them."""
        return super().gradients(state, self.rescaled(batch), noise, clock)

    def critic_gradients(
        self, state: CalQLState, batch: Batch, noise: CalQLNoise
    ) -> tuple[Grads, Metrics]:
        """Temporal differences and the calibrated push-down, whose weight may be learnt."""
        learnt = state.log_weight
        weight = self.alpha if learnt is None else self.alpha * learnt_weight(learnt.model)
        next_values = self.next_values(state, batch.next_observations, noise)
        critic, metrics = gradient_of(conservative_loss)(
            state.critic.model,
            batch.observations,
            batch.actions,
            td_target(batch.rewards, batch.masks, next_values, self.discount),
            self.candidates(state, batch, noise),
            batch.fields["returns"],
            weight,
            0.0 if learnt is None else self.gap,
        )
        grads: dict[str, Any] = {"critic": critic}
        found: dict[str, Array] = {"critic/weight": jnp.asarray(weight)}
        if learnt is not None:
            found["critic/weight_loss"], grads["log_weight"] = jax.value_and_grad(weight_loss)(
                learnt.model, metrics["critic/excess"], self.gap, self.alpha
            )
        return grads, {**metrics, **found}

    def candidates(self, state: CalQLState, batch: Batch, noise: CalQLNoise) -> Candidates:
        """Uniform actions, and the policy's at s and at s'; nothing reaches the policy."""
        policy = state.actor.model
        here, here_log = policy.sample(batch.observations, noise.here)
        ahead, ahead_log = policy.sample(batch.next_observations, noise.ahead)
        actions, log_probs = jnp.concatenate([here, ahead]), jnp.concatenate([here_log, ahead_log])
        return Candidates(noise.uniform, actions, log_probs)

    def next_values(self, state: CalQLState, observations: Array, noise: CalQLNoise) -> Array:
        """The best of several next actions, by the target critics, aggregated."""
        actions, log_probs = state.actor.model.sample(observations, noise.target)
        q = self.target_value(state.target_critic(observations, actions), noise)
        soft = q - self.temperature(state) * log_probs if self.entropy_backup else q
        best = q.argmax(0, keepdims=True)
        return jnp.take_along_axis(soft, best, 0)[0]
