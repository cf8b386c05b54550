"""ReBRAC: a deterministic actor and its critic, each penalised by its distance to the data.

Tarasov et al., "Revisiting the Minimalist Approach to Offline Reinforcement Learning",
arXiv 2305.09836, as in FQL's official code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.agents.shared import (
    Continuing,
    Critical,
    Delayed,
    Grads,
    Rescaled,
    gradient_of,
    zeros_of,
)
from deflow.behavior.gaussian import Mean
from deflow.core.agent import Mode, Noise, Phase, State
from deflow.core.settings import setting
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.extraction.regularisation import penalty, regularised_loss
from deflow.nn.encoder import Encoded
from deflow.nn.learner import Learner
from deflow.value.td import Critic, td_loss, td_target


class ReBRACState(eqx.Module):
    """All that is learnt, and all that a resumed run needs."""

    critic: Learner[Critic]
    target_critic: Critic
    actor: Learner[Mean]
    target_actor: Mean


class ReBRAC(Delayed, Rescaled, Continuing, Critical):
    """Settings of ReBRAC."""

    name: ClassVar[str] = "rebrac"
    sees_frames: ClassVar[bool] = True
    targets: ClassVar[Mapping[str, str]] = {"target_critic": "critic", "target_actor": "actor"}

    alpha_actor: float = setting(0.01, at_least=0)
    """Weight of the actor's distance to the data (alpha 1 of Table 6)."""
    alpha_critic: float = setting(0.01, at_least=0)
    """Weight of the next action's distance to the data's next action (alpha 2)."""
    noise_scale: float = setting(0.2, at_least=0)
    """Deviation of the noise on the target's next action, and of exploration."""
    noise_clip: float = setting(0.5, at_least=0)
    """Where that noise is cut."""
    actor_every: int = setting(2, at_least=1)
    """The actor and all targets move at every such step."""
    squash: bool = setting(True)
    """Keep the actor in the box by tanh."""

    def init(self, key: PRNGKeyArray, spec: Spec) -> ReBRACState:
        critic_key, actor_key = jax.random.split(key)
        critic = self.init_critic(critic_key, spec)
        actor = self.actor(Mean, actor_key, spec, squash=self.squash)
        return ReBRACState(self.learner(critic), critic, actor, actor.model)

    def learning(self, name: str, spec: Spec, steps: int) -> Phase:
        learn, fields = ReBRAC.gradients, ("next_actions",)
        return self.phase(name, spec, steps, learn, ReBRAC.draw_update, fields=fields)

    def draw_update(self, key: PRNGKeyArray, spec: Spec) -> Float[Array, "batch act"]:
        return jax.random.normal(key, (self.batch_size, spec.action_dim))

    def gradients(
        self, state: ReBRACState, batch: Batch, noise: Noise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """The critics at every step, the actor at every `actor_every`-th."""
        batch = self.rescaled(batch)
        critic, critic_metrics = gradient_of(td_loss)(
            state.critic.model, batch.observations, batch.actions, self.target(state, batch, noise)
        )

        def move(actor: Mean) -> tuple[Mean, Metrics]:
            value = lambda obs, actions: state.critic.model(obs, actions).min(0)  # noqa: E731
            return gradient_of(regularised_loss)(
                actor, value, batch.observations, batch.actions, self.alpha_actor
            )

        def rest(actor: Mean) -> tuple[Mean, Metrics]:
            # A gradient of zero: the optimiser's momentum goes on, as in the official code.
            return zeros_of(move, actor)

        moves = self.moves(clock)
        branch = _select if isinstance(state.actor.model, Encoded) else jax.lax.cond
        actor, metrics = branch(moves, move, rest, state.actor.model)
        measured = {"actor/measured": moves.astype(jnp.float32)}
        return {"critic": critic, "actor": actor}, {**critic_metrics, **metrics, **measured}

    def target(
        self, state: ReBRACState, batch: Batch, noise: Float[Array, "batch act"]
    ) -> Float[Array, " batch"]:
        """y = r + gamma mask (min Q'(s', a') - alpha_2 ||a' - a'_data||^2), a' a noisy target."""
        noise = jnp.clip(self.noise_scale * noise, -self.noise_clip, self.noise_clip)
        actions = jnp.clip(state.target_actor(batch.next_observations) + noise, -1, 1)
        q = state.target_critic(batch.next_observations, actions).min(0)
        distance = penalty(actions, batch.fields["next_actions"])
        next_q = q - self.alpha_critic * distance
        return td_target(batch.rewards, batch.masks, next_q, self.discount)

    def averaged(self, state: State, grads: Grads, clock: Clock) -> dict[str, State]:
        kept = {name: getattr(state, name) for name in self.targets}
        average = lambda: super(ReBRAC, self).averaged(state, grads, clock)  # noqa: E731
        moved: dict[str, State] = jax.lax.cond(self.moves(clock), average, lambda: kept)
        return moved

    def draw_act(self, key: PRNGKeyArray, spec: Spec) -> Float[Array, " act"]:
        return jax.random.normal(key, (spec.action_dim,))

    def act(
        self,
        state: ReBRACState,
        observations: Float[Array, "n obs"],
        noise: Float[Array, "n act"],
        mode: Mode = "evaluate",
    ) -> Float[Array, "n act"]:
        """The actor's action; exploring, with noise."""
        actions = state.actor.model(observations)
        if mode == "explore":
            actions += jnp.clip(self.noise_scale * noise, -self.noise_clip, self.noise_clip)
        return jnp.clip(actions, -1, 1)


def _select(moves: Array, yes: Callable[..., Any], no: Callable[..., Any], operand: Any) -> Any:
    """`lax.cond` without a branch, in which convolutions are some fifty times slower on CPUs."""
    return jax.tree.map(lambda a, b: jnp.where(moves, a, b), yes(operand), no(operand))
