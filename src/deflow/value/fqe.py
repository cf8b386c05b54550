"""How good a fixed policy is, from data alone: fitted Q evaluation (FQE).

Le, Voloshin and Yue, "Batch Policy Learning under Constraints", arXiv 1903.08738, algorithm 3: Q is
regressed onto r + gamma Q(s', a') with a' of the policy, which is never trained. Here by gradient
steps with a target network that follows, as today's deep variants do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.core.settings import check_settings, setting
from deflow.core.types import Batch, Metrics, Spec
from deflow.nn.learner import Learner, polyak
from deflow.value.td import Critic, td_loss, td_target


@dataclass(frozen=True)
class FQE:
    """Settings of the fit."""

    hidden: tuple[int, ...] = setting((256, 256, 256), at_least=1)
    """Widths of the critics' hidden layers."""
    count: int = setting(2, at_least=1)
    """Critics, each with a target of its own: where they differ, the data leave the value open."""
    learning_rate: float = setting(3e-4, above=0)
    """Adam's rate."""
    batch_size: int = setting(256, at_least=1)
    """Transitions in a step."""
    tau: float = setting(0.05, above=0, at_most=1)
    """Rate of the targets' averaging, ten times the agents' own: see `unsettled`."""

    def validate(self) -> None:
        """Raise `DeFlowError` where a setting is out of range."""
        check_settings(self)

    def unsettled(self, steps: int, discount: float) -> float:
        """What is left of the way from the first values to the last after so many steps, where
        critics keep up with their targets: exp(-tau (1 - discount) steps)."""
        return math.exp(-self.tau * (1 - discount) * steps)


class FittedQ(eqx.Module):
    """The critics of one policy."""

    critic: Learner[Critic]
    target: Critic

    def value(
        self, observations: Float[Array, "*batch obs"], actions: Float[Array, "*batch act"]
    ) -> Float[Array, "count *batch"]:
        """Each critic's Q(s, a), by the target networks: they average over the last steps."""
        return self.target(observations, actions)


def fqe_init(settings: FQE, key: PRNGKeyArray, spec: Spec) -> FittedQ:
    """The critics before the first step."""
    sizes = (spec.observation_dim, spec.action_dim, settings.hidden)
    critic = Critic(*sizes, count=settings.count, key=key)
    return FittedQ(Learner.create(critic, optax.adam(settings.learning_rate)), critic)


def return_bounds(
    reward_range: tuple[float, float], discount: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The least and the greatest return that rewards in a range allow, in episodes of one step and
    of endless ones."""
    low, high = reward_range
    longest = 1 / (1 - discount)
    return jnp.minimum(low, low * longest), jnp.maximum(high, high * longest)


def fqe_target(
    target: Critic,
    rewards: Float[Array, " batch"],
    masks: Float[Array, " batch"],
    next_observations: Float[Array, "batch obs"],
    next_actions: Float[Array, "batch act"],
    discount: float | Float[Array, ""],
    bounds: tuple[Float[Array, ""], Float[Array, ""]],
) -> Float[Array, "count batch"]:
    """r + gamma mask Q'(s', a') of each critic, kept in what any policy could earn.

    `next_actions` are the policy's. The bounds hold the fit where the policy leaves the data and a
    critic that has seen nothing there would otherwise feed on itself.
    """
    next_q = target(next_observations, next_actions)
    return jnp.clip(td_target(rewards, masks, next_q, discount), *bounds)


def fqe_step(
    settings: FQE,
    state: FittedQ,
    batch: Batch,
    next_actions: Float[Array, "batch act"],
    discount: float | Float[Array, ""],
    bounds: tuple[Float[Array, ""], Float[Array, ""]],
) -> tuple[FittedQ, Metrics]:
    """One gradient step of every critic on its own target, (Q(s, a) - y)^2."""
    y = fqe_target(
        state.target,
        batch.rewards,
        batch.masks,
        batch.next_observations,
        next_actions,
        discount,
        bounds,
    )
    grads, metrics = eqx.filter_grad(td_loss, has_aux=True)(
        state.critic.model, batch.observations, batch.actions, y
    )
    critic = state.critic.step(grads, optax.adam(settings.learning_rate))
    return FittedQ(critic, polyak(state.target, state.critic.model, settings.tau)), metrics
