"""SAC: soft actor-critic, from an empty world: a stochastic policy, paid for its entropy.

Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", arXiv 1812.05905. Defaults are
those that OGBench's own SAC trains its ant expert with (`impls/agents/sac.py` and
`data_gen_scripts/main_sac.py`, read in public copies: five agree on the settings, the losses are of
one). A learner for each network steps as the official code's one optimiser does, since Adam works
element by element.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.agents.shared import Critical, Grads, gradient_of
from deflow.behavior.squashed import Squashed
from deflow.core.agent import ONLINE, Mode, Noise, Online, Phase
from deflow.core.settings import setting
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.extraction.entropy import entropy_loss
from deflow.extraction.multiplier import MultiplierForm, multiplier_loss
from deflow.nn.learner import Learner
from deflow.value.td import Aggregation, Critic, aggregate, td_loss, td_target


class SACState(eqx.Module):
    """All that is learnt, and all that a resumed run needs."""

    critic: Learner[Critic]
    target_critic: Critic
    actor: Learner[Squashed]
    log_temperature: Learner[Float[Array, ""]]


class SACNoise(NamedTuple):
    """The draws of an update."""

    target: Float[Array, "... batch act"]
    """Of the target's next actions."""
    actor: Float[Array, "batch act"]
    """Of the actions of the actor's loss."""
    critic: Noise = ()


class SAC(Critical):
    """Settings of SAC."""

    name: ClassVar[str] = "sac"
    needs_data: ClassVar[bool] = False
    schedules: ClassVar[tuple[str, ...]] = ("online",)
    temperature_form: ClassVar[MultiplierForm] = "linear"
    """Of the temperature's loss."""

    learning_rate: float = setting(1e-4, above=0)
    """Adam's rate, for every network."""
    hidden: tuple[int, ...] = setting((256, 256), at_least=1)
    """Widths of the hidden layers."""
    critic_layer_norm: bool = setting(False)
    """LayerNorm in the critics."""
    target_aggregation: Aggregation = setting("min")
    """How the target takes one value out of the critics."""
    actor_aggregation: Aggregation = setting("min")
    """How the actor's loss does."""
    entropy_backup: bool = setting(True)
    """The entropy of the next action belongs to its value."""
    target_entropy_multiplier: float = setting(0.5, at_least=0)
    """The entropy that the temperature holds, below zero, by action dimension."""
    init_temperature: float = setting(1.0, above=0)
    """Where the temperature starts."""
    random_steps: int = setting(10_000, at_least=0)
    """Steps at the beginning with uniform actions, in which nothing is learnt."""

    def init(self, key: PRNGKeyArray, spec: Spec) -> SACState:
        critic_key, actor_key = jax.random.split(key)
        critic = self.init_critic(critic_key, spec)
        log_temperature = jnp.log(jnp.asarray(self.init_temperature, jnp.float32))
        return SACState(
            critic=self.learner(critic),
            target_critic=critic,
            actor=self.init_actor(actor_key, spec),
            log_temperature=self.learner(log_temperature),
        )

    def init_actor(self, key: PRNGKeyArray, spec: Spec) -> Learner[Squashed]:
        return self.actor(Squashed, key, spec)

    def phases(self, spec: Spec, schedule: str) -> tuple[Phase, ...]:
        return ()

    def online(self, spec: Spec, steps: int) -> Online:
        return Online(self.learning(ONLINE, spec, steps), random_steps=self.random_steps)

    def learning(self, name: str, spec: Spec, steps: int, fields: tuple[str, ...] = ()) -> Phase:
        """The phase of this update."""
        cls = type(self)
        return self.phase(name, spec, steps, cls.gradients, cls.draw_update, fields=fields)

    def draw_update(self, key: PRNGKeyArray, spec: Spec) -> Any:
        target, actor = jax.random.normal(key, (2, self.batch_size, spec.action_dim))
        return SACNoise(target, actor)

    # Gradients -------------------------------------------------------------------------------

    def gradients(
        self, state: Any, batch: Batch, noise: Any, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """Critics (eq. 5), actor (eq. 7) and temperature (eq. 18), all of the same parameters."""
        critic, critic_metrics = self.critic_gradients(state, batch, noise)
        policy, policy_metrics = self.policy_gradients(state, batch, noise, clock)
        return {**critic, **policy}, {**critic_metrics, **policy_metrics}

    def critic_gradients(self, state: Any, batch: Batch, noise: Any) -> tuple[Grads, Metrics]:
        """y = r + gamma mask (Q'(s', a') - alpha log pi(a' | s')), a' ~ pi."""
        next_values = self.next_values(state, batch.next_observations, noise)
        critic, metrics = gradient_of(td_loss)(
            state.critic.model,
            batch.observations,
            batch.actions,
            td_target(batch.rewards, batch.masks, next_values, self.discount),
        )
        return {"critic": critic}, metrics

    def next_values(
        self, state: Any, observations: Float[Array, "batch obs"], noise: Any
    ) -> Float[Array, " batch"]:
        """The soft value of each next state, by the target critics."""
        actions, log_probs = state.actor.model.sample(observations, noise.target)
        q = self.target_value(state.target_critic(observations, actions), noise)
        return q - self.temperature(state) * log_probs if self.entropy_backup else q

    def target_value(self, q: Float[Array, "count *batch"], noise: Any) -> Float[Array, "*batch"]:
        """What the target takes out of the critics."""
        return aggregate(q, self.target_aggregation)

    def policy_gradients(
        self, state: Any, batch: Batch, noise: Any, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """The actor's, and the temperature's at the actor's entropy."""

        def value(observations: Array, actions: Array) -> Array:
            return aggregate(state.critic.model(observations, actions), self.actor_aggregation)

        alpha = self.temperature(state)
        actor, metrics = gradient_of(entropy_loss)(
            state.actor.model, value, batch.observations, noise.actor, alpha
        )
        # The entropy is bounded from below: its negative, from above.
        bound = self.target_entropy_multiplier * batch.actions.shape[-1]
        loss, log_temperature = jax.value_and_grad(multiplier_loss)(
            state.log_temperature.model, -metrics["actor/entropy"], bound, self.temperature_form
        )
        found = {"actor/temperature": alpha, "actor/temperature_loss": loss}
        return {"actor": actor, "log_temperature": log_temperature}, {**metrics, **found}

    def temperature(self, state: Any) -> Float[Array, ""]:
        """alpha, the price of the entropy."""
        return jnp.exp(state.log_temperature.model)

    # Acting ----------------------------------------------------------------------------------

    def draw_act(self, key: PRNGKeyArray, spec: Spec) -> Float[Array, " act"]:
        return jax.random.normal(key, (spec.action_dim,))

    def act(
        self,
        state: Any,
        observations: Float[Array, "n obs"],
        noise: Float[Array, "n act"],
        mode: Mode = "evaluate",
    ) -> Float[Array, "n act"]:
        """tanh of the mean; exploring, a sample."""
        policy: Squashed = state.actor.model
        return (
            policy.sample(observations, noise)[0]
            if mode == "explore"
            else policy.mode(observations)
        )
