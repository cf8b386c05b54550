"""SRPO: a deterministic policy climbs Q, held to the data by the score of a diffused behaviour.

Chen et al., "Score Regularized Policy Optimization through Diffusion Behavior", arXiv 2310.07297.

A **derivation** of what FQL benchmarked (arXiv 2502.02538, appendix E.2): its authors rebuilt SRPO
on IDQL's code with IDQL's settings and did not release it. Here IDQL's noise model and critics meet
SRPO's surrogate gradient. By default time is SRPO's continuous one; `discrete` draws it from IDQL's
levels, as a build on IDQL's code may have done. What the sources leave open and this file decides:
the averaged noise model gives the score; the policy takes as many steps as the critics, has their
widths and IDQL's batches of 512, and is this library's squashed actor, with ReLU as SRPO's own.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import jax
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.agents.idql import Diffusing, IDQLState
from deflow.agents.shared import Grads, gradient_of
from deflow.behavior.diffusion import Scales, continuous_scales
from deflow.behavior.gaussian import Mean
from deflow.core.agent import Mode, Noise, Phase
from deflow.core.settings import setting
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.extraction.score import ScoreWeight, surrogate_loss
from deflow.nn.learner import Learner, cosine


class SRPOState(IDQLState):
    """All that is learnt, and all that a resumed run needs."""

    actor: Learner[Mean]


class ScoreNoise(NamedTuple):
    """The draws of one policy update: the noise on the policy's actions, and its times."""

    noise: Float[Array, "batch act"]
    t: Float[Array, "batch 1"]


class SRPO(Diffusing):
    """Settings of SRPO."""

    name: ClassVar[str] = "srpo"
    behavior_settings: ClassVar[tuple[str, ...]] = (*Diffusing.behavior_settings, "time")

    beta: float = setting(0.1, at_least=0)
    """Weight of Q's gradient against the behaviour's score (Table 6)."""
    time: Literal["continuous", "discrete"] = setting("continuous")
    """Where the noise of the behaviour and of the score stands: anywhere, or at IDQL's levels."""
    weight: ScoreWeight = setting("vds")
    """w(t): `vds`, sigma^2 (published); `stable`, 1; `score`, alpha / sigma."""
    subtract_baseline: bool = setting(False)
    """Take the noise off its estimate (the paper's baseline; off in the official runs)."""
    normalize_guidance: bool = setting(False)
    """Divide Q's gradient by its root mean square (on for the official runs on mazes)."""

    def init(self, key: PRNGKeyArray, spec: Spec) -> SRPOState:
        key, actor_key = jax.random.split(key)
        actor = self.actor(Mean, actor_key, spec, squash=True, activation=jax.nn.relu)
        return SRPOState(**self.begin(key, spec), actor=actor)

    def phases(self, spec: Spec, schedule: str) -> tuple[Phase, ...]:
        """Behaviour, critics, and the policy, for which both are finished."""
        learn, draw = SRPO.policy_gradients, SRPO.draw_policy
        policy = self.phase("policy", spec, spec.total_steps, learn, draw)
        return (*super().phases(spec, schedule), policy)

    def rule(
        self, learner: str, done: float | Float[Array, ""] = 0.0
    ) -> optax.GradientTransformation:
        """As IDQL's; the policy's rate too falls to 0 over its phase."""
        if learner != "actor":
            return super().rule(learner, done)
        return optax.adam(self.learning_rate * cosine(done))

    def scales(self, t: Float[Array, "*batch 1"]) -> Scales:
        return super().scales(t) if self.time == "discrete" else continuous_scales(t)

    def draw_times(
        self, key: PRNGKeyArray, low: float = 0.001, high: float = 1.0
    ) -> Float[Array, "batch 1"]:
        """Levels, or times between two ends."""
        if self.time == "discrete":
            return super().draw_times(key)
        return jax.random.uniform(key, (self.batch_size, 1), minval=low, maxval=high)

    def draw_policy(self, key: PRNGKeyArray, spec: Spec) -> ScoreNoise:
        noise_key, time_key = jax.random.split(key)
        return ScoreNoise(
            noise=jax.random.normal(noise_key, (self.batch_size, spec.action_dim)),
            t=self.draw_times(time_key, 0.02, 0.98),
        )

    def policy_gradients(
        self, state: SRPOState, batch: Batch, noise: ScoreNoise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """The surrogate gradient, with the mean of the target critics."""
        actor, metrics = gradient_of(surrogate_loss)(
            state.actor.model,
            lambda observations, noisy: state.average(observations, noisy, noise.t),
            lambda observations, actions: state.target_critic(observations, actions).mean(0),
            batch.observations,
            noise.noise,
            self.scales(noise.t),
            self.beta,
            weight=self.weight,
            baseline=self.subtract_baseline,
            normalize_guidance=self.normalize_guidance,
        )
        return {"actor": actor}, metrics

    def draw_act(self, key: PRNGKeyArray, spec: Spec) -> Noise:
        return ()

    def act(
        self,
        state: SRPOState,
        observations: Float[Array, "n obs"],
        noise: Noise,
        mode: Mode = "evaluate",
    ) -> Float[Array, "n act"]:
        """pi(s), in either mode."""
        return state.actor.model(observations)
