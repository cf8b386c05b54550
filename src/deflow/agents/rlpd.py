"""RLPD: SAC that learns online, with half of each batch from logged data.

Ball et al., "Efficient Online Reinforcement Learning with Offline Data", arXiv 2302.02948.
Defaults are those of FQL's re-implementation (arXiv 2502.02538, appendix E.2), whose numbers the
tables hold: two critics of 4x512 with LayerNorm, their mean, one update for each step. The mean is
the paper's word (the smaller critic on Adroit alone); the released code's default is the smaller.
The original is `critics` 10, `subset` 2 (1 on ant mazes), `target_aggregation` min, `actor_every`
20 at 20 updates for each step, `entropy_backup`, `hidden` 256 256 256, `random_steps` 5000.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.agents.sac import SAC, SACNoise, SACState
from deflow.agents.shared import Delayed, Grads, zeros_of
from deflow.core.agent import Online
from deflow.core.errors import DeFlowError
from deflow.core.settings import setting
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.value.td import Aggregation, Critic


class RLPD(Delayed, SAC):
    """Settings of RLPD."""

    name: ClassVar[str] = "rlpd"
    needs_data: ClassVar[bool] = True

    learning_rate: float = setting(3e-4, above=0)
    """Adam's rate, for every network."""
    hidden: tuple[int, ...] = setting((512, 512, 512, 512), at_least=1)
    """Widths of the hidden layers."""
    critic_layer_norm: bool = setting(True)
    """LayerNorm in the critics."""
    target_aggregation: Aggregation = setting("mean")
    """How the target takes one value out of the critics."""
    actor_aggregation: Aggregation = setting("mean")
    """How the actor's loss does."""
    entropy_backup: bool = setting(False)
    """The entropy of the next action belongs to its value."""
    random_steps: int = setting(0, at_least=0)
    """Steps at the beginning with uniform actions, in which nothing is learnt."""
    critics: int = setting(2, at_least=1)
    """Critics in the ensemble."""
    subset: int = setting(0, at_least=0)
    """Critics that a target asks, drawn anew for each update; 0 asks all."""
    actor_every: int = setting(1, at_least=1)
    """The actor and the temperature step at every such update: once for each step of the
    environment where it equals the updates for each step."""

    def validate(self) -> None:
        super().validate()
        if self.subset > self.critics:
            raise DeFlowError(
                f"The setting subset must be at most critics, {self.critics}, but it is "
                f"{self.subset}."
            )

    def init_critic(self, key: PRNGKeyArray, spec: Spec) -> Critic:
        sizes = (spec.observation_dim, spec.action_dim, self.hidden)
        return Critic(*sizes, count=self.critics, layer_norm=self.critic_layer_norm, key=key)

    def online(self, spec: Spec, steps: int) -> Online:
        return dataclasses.replace(super().online(spec, steps), balanced=True)

    def draw_update(self, key: PRNGKeyArray, spec: Spec) -> SACNoise:
        normal_key, subset_key = jax.random.split(key)
        drawn: SACNoise = super().draw_update(normal_key, spec)
        asked = jax.random.permutation(subset_key, self.critics)[: self.subset]
        return drawn._replace(critic=asked)

    def target_value(self, q: Float[Array, "count *batch"], noise: Any) -> Float[Array, "*batch"]:
        return super().target_value(q[noise.critic] if self.subset else q, noise)

    def policy_gradients(
        self, state: SACState, batch: Batch, noise: SACNoise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """SAC's, computed only where the actor steps."""

        def move() -> tuple[Grads, Metrics]:
            return super(RLPD, self).policy_gradients(state, batch, noise, clock)

        if self.actor_every == 1:
            return move()
        moves = self.moves(clock)
        grads, metrics = jax.lax.cond(moves, move, lambda: zeros_of(move))
        measured = moves.astype(jnp.float32)
        rooms = ("actor", "log_temperature")
        return grads, {**metrics, **{f"{room}/measured": measured for room in rooms}}

    def stepped(
        self, state: SACState, grads: Grads, clock: Clock, done: float | Float[Array, ""] = 0.0
    ) -> SACState:
        stepped: SACState = super().stepped(state, grads, clock, done)
        if self.actor_every == 1:
            return stepped
        # Between its steps the actor rests altogether: no momentum moves it.
        moves = self.moves(clock)
        kept = {
            name: jax.tree.map(
                lambda new, old: jnp.where(moves, new, old),
                getattr(stepped, name),
                getattr(state, name),
            )
            for name in ("actor", "log_temperature")
        }
        return dataclasses.replace(stepped, **kept)
