"""IDQL: IQL's critics choose among several actions of a diffusion that clones the behaviour.

Hansen-Estruch et al., "IDQL: Implicit Q-Learning as an Actor-Critic Method with Diffusion
Policies", arXiv 2304.10573, with the sizes of FQL's runs of it (arXiv 2502.02538, appendix E.2).

A **derivation**: the released update steps the behaviour and the critics together, once each, so
that FQL's two behaviour steps for one of the critics are not in it. Since neither needs the other,
here they are phases, the behaviour first. What else differs: no data are held out; the critics step
as in this library's IQL (a sum over the ensemble, V and Q at once); averages, the behaviour's too,
take the parameters from before the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.agents.shared import Grads, Implicit
from deflow.behavior.diffusion import (
    DiffusionNoise,
    NoiseModel,
    Scales,
    denoise,
    discrete_scales,
    draw_levels,
    noise_loss,
)
from deflow.core.agent import Mode, Phase, State
from deflow.core.settings import setting
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.extraction.best_of import best_of
from deflow.nn.learner import Learner, cosine, polyak
from deflow.nn.resnet import draw_dropout
from deflow.value.expectile import StateValue
from deflow.value.td import Critic


class IDQLState(eqx.Module):
    """All that is learnt, and all that a resumed run needs."""

    behavior: Learner[NoiseModel]
    average: NoiseModel
    """The behaviour's parameters, averaged: those that act."""
    critic: Learner[Critic]
    target_critic: Critic
    value: Learner[StateValue]


class Diffusing(Implicit):
    """An agent whose behaviour is a diffusion, trained before IQL's critics: IDQL, SRPO."""

    schedules: ClassVar[tuple[str, ...]] = ("staged",)
    behavior_settings: ClassVar[tuple[str, ...]] = (
        "dropout",
        "weight_decay",
        "average_rate",
        "diffusion_steps",
    )

    hidden: tuple[int, ...] = setting((256, 256), at_least=1)
    """Widths of the critics' hidden layers (FQL's runs of locomotion: 512 512)."""
    critic_layer_norm: bool = setting(False)
    """LayerNorm in the critics."""
    batch_size: int = setting(512, at_least=1)
    """Transitions in an update."""
    behavior_width: int = setting(256, at_least=1)
    """Width of the noise model's blocks; inside they are four times as wide."""
    behavior_blocks: int = setting(3, at_least=1)
    """Blocks of the noise model."""
    behavior_factor: int = setting(2, at_least=1)
    """Gradient steps of the behaviour for each of the critics (FQL: 3M and 1.5M)."""
    dropout: float = setting(0.1, at_least=0, below=1)
    """Part of each block's input that is dropped in training."""
    weight_decay: float = setting(1e-4, at_least=0)
    """AdamW's decay of the noise model's parameters."""
    average_rate: float = setting(0.001, above=0, at_most=1)
    """Rate of the noise model's averaging."""
    diffusion_steps: int = setting(5, at_least=1)
    """Levels of noise, where they are discrete."""

    def begin(self, key: PRNGKeyArray, spec: Spec) -> dict[str, Any]:
        """Behaviour and critics before training, by their names in the state."""
        keys = jax.random.split(key, 3)
        sizes = (spec.observation_dim, spec.action_dim)
        width, blocks = self.behavior_width, self.behavior_blocks
        model = NoiseModel(*sizes, width=width, blocks=blocks, key=keys[0])
        options: Any = {"layer_norm": self.critic_layer_norm, "activation": jax.nn.relu}
        critic = Critic(*sizes, self.hidden, **options, key=keys[1])
        value = StateValue(spec.observation_dim, self.hidden, **options, key=keys[2])
        return {
            "behavior": self.learner(model, "behavior"),
            "average": model,
            "critic": self.learner(critic),
            "target_critic": critic,
            "value": self.learner(value),
        }

    def phases(self, spec: Spec, schedule: str) -> tuple[Phase, ...]:
        """The behaviour, of which the critics know nothing, then the critics."""
        cls, steps = type(self), spec.total_steps
        first, learn, draw = self.behavior_factor * steps, cls.behavior_gradients, cls.draw_behavior
        behavior = self.phase("behavior", spec, first, learn, draw, graft=share_behavior)
        return (behavior, self.phase("value", spec, steps, cls.value_gradients))

    def rule(
        self, learner: str, done: float | Float[Array, ""] = 0.0
    ) -> optax.GradientTransformation:
        """The behaviour by AdamW, its rate falling to 0 over its phase; the critics by Adam."""
        if learner != "behavior":
            return super().rule(learner, done)
        return optax.adamw(self.learning_rate * cosine(done), weight_decay=self.weight_decay)

    def averaged(self, state: Any, grads: Grads, clock: Clock) -> dict[str, Any]:
        """The targets, and the behaviour at a rate of its own."""
        targets = super().averaged(state, grads, clock)
        if "behavior" in grads:
            targets["average"] = polyak(state.average, state.behavior.model, self.average_rate)
        return targets

    # Behaviour -------------------------------------------------------------------------------

    def scales(self, t: Float[Array, "*batch 1"]) -> Scales:
        """How much of an action and how much noise there is at a time: IDQL's levels."""
        return discrete_scales(t, self.diffusion_steps)

    def draw_times(self, key: PRNGKeyArray) -> Float[Array, "batch 1"]:
        """Times of the behaviour's loss."""
        return draw_levels(key, self.batch_size, self.diffusion_steps)

    def draw_behavior(self, key: PRNGKeyArray, spec: Spec) -> DiffusionNoise:
        keys = jax.random.split(key, 3)
        masks = (self.behavior_blocks, self.batch_size, self.behavior_width)
        return DiffusionNoise(
            noise=jax.random.normal(keys[0], (self.batch_size, spec.action_dim)),
            t=self.draw_times(keys[1]),
            dropout=draw_dropout(keys[2], self.dropout, masks),
        )

    def behavior_gradients(
        self, state: Any, batch: Batch, noise: DiffusionNoise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """Behaviour cloning by predicting noise: no value is involved."""
        loss, grads = eqx.filter_value_and_grad(noise_loss)(
            state.behavior.model, batch.observations, batch.actions, noise, self.scales(noise.t)
        )
        return {"behavior": grads}, {"behavior/loss": loss}


def share_behavior(state: State, donor: State) -> State:
    """The state with the donor's behaviour."""
    parts = (donor.behavior, donor.average)
    return eqx.tree_at(lambda s: (s.behavior, s.average), state, parts)


class IDQL(Diffusing):
    """Settings of IDQL."""

    name: ClassVar[str] = "idql"
    unused: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("actor_hidden", "actor_layer_norm"),
        "what acts is the noise model, with a width of its own",
    )

    best_of: int = setting(32, at_least=1)
    """Actions proposed for each that is taken (N of Table 6)."""

    def init(self, key: PRNGKeyArray, spec: Spec) -> IDQLState:
        return IDQLState(**self.begin(key, spec))

    def draw_act(self, key: PRNGKeyArray, spec: Spec) -> Float[Array, "n steps act"]:
        """For each proposal where the sampler starts, and what its steps add."""
        return jax.random.normal(key, (self.best_of, self.diffusion_steps, spec.action_dim))

    def act(
        self,
        state: IDQLState,
        observations: Float[Array, "b obs"],
        noise: Float[Array, "b n steps act"],
        mode: Mode = "evaluate",
    ) -> Float[Array, "b act"]:
        """The proposal that the smaller of the target critics likes best, in either mode."""
        return self.propose(state, observations, noise)

    def propose(
        self,
        state: IDQLState,
        observations: Float[Array, "b obs"],
        noise: Float[Array, "b n steps act"],
    ) -> Float[Array, "b act"]:
        """What the behaviour would do; also the best of several where the noise holds several."""
        each = observations[:, None]
        proposals = denoise(state.average, each, noise)
        return best_of(proposals, state.target_critic(each, proposals).min(0))
