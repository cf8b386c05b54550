"""Critics that several systems share: an ensemble by temporal differences, and IQL's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Array, Float, PRNGKeyArray

from deflow.agents.shared.trained import Grads, Trained, gradient_of
from deflow.core.agent import Noise, State
from deflow.core.settings import setting
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.nn.encoder import behind_encoder
from deflow.nn.learner import polyak
from deflow.value.expectile import StateValue, expectile_loss
from deflow.value.td import Aggregation, Critic, aggregate, td_loss, td_target


class Critical(Trained):
    """An agent with an ensemble of critics, and targets that follow them."""

    targets: ClassVar[Mapping[str, str]] = {"target_critic": "critic"}
    """Which target network averages which learner."""

    discount: float = setting(0.99, above=0, below=1)
    """Discount of the return."""
    tau: float = setting(0.005, above=0, at_most=1)
    """Rate of the targets' averaging."""
    critic_layer_norm: bool = setting(True)
    """LayerNorm in the critics."""

    def init_critic(self, key: PRNGKeyArray, spec: Spec) -> Any:
        """The critics before training."""
        sizes, layer_norm = (spec.observation_dim, spec.action_dim), self.critic_layer_norm
        return behind_encoder(
            spec.frame,
            key,
            lambda key: Critic(*sizes, self.hidden, layer_norm=layer_norm, key=key),
        )

    def target_part(self, model: Any) -> Any:
        """What of a network its target averages: all of it."""
        return model

    def averaged(self, state: State, grads: Grads, clock: Clock) -> dict[str, Any]:
        """Targets of the learners that step. They average the parameters *before* the step, as
        the official code does."""
        return {
            target: polyak(
                getattr(state, target), self.target_part(getattr(state, name).model), self.tau
            )
            for target, name in self.targets.items()
            if name in grads
        }

    def value(
        self,
        state: Any,
        observations: Float[Array, "*batch obs"],
        actions: Float[Array, "*batch act"],
    ) -> Float[Array, " *batch"]:
        """The critics' mean."""
        q: Array = state.critic.model(observations, actions).mean(0)
        return q


class Bootstrapped(Critical):
    """An agent whose critics' target asks its own policy for the next action."""

    target_aggregation: Aggregation = setting("mean")
    """How the target takes one value out of the critics."""

    @property
    def target_samples(self) -> tuple[int, ...]:
        """How many next actions a target takes for each transition, as leading axes."""
        return ()

    def draw_critic(self, key: PRNGKeyArray, spec: Spec) -> Noise:
        """What the critics' loss draws beside the next actions: nothing."""
        return ()

    def critic_gradient(
        self, state: Any, batch: Batch, next_actions: Float[Array, "batch act"], noise: Noise
    ) -> tuple[Any, Metrics]:
        """y = r + gamma mask Q'(s', a'), with a' of the policy."""
        next_q = state.target_critic(batch.next_observations, next_actions)
        target = td_target(
            batch.rewards, batch.masks, aggregate(next_q, self.target_aggregation), self.discount
        )
        return gradient_of(td_loss)(state.critic.model, batch.observations, batch.actions, target)


class Implicit(Critical):
    """An agent whose critics are IQL's: V is an expectile of Q over the data's own actions."""

    expectile: float = setting(0.9, above=0, below=1)
    """Which expectile of Q the state's value is."""

    def init_value(self, key: PRNGKeyArray, spec: Spec) -> Any:
        size, layer_norm = spec.observation_dim, self.critic_layer_norm
        return behind_encoder(
            spec.frame,
            key,
            lambda key: StateValue(size, self.hidden, layer_norm=layer_norm, key=key),
        )

    def value_gradients(
        self, state: Any, batch: Batch, noise: Noise, clock: Clock
    ) -> tuple[Grads, Metrics]:
        """Eq. 5 with the smaller of the target critics, and eq. 6, summed over the critics."""
        obs, actions = batch.observations, batch.actions
        q = state.target_critic(obs, actions).min(0)
        value, value_metrics = gradient_of(expectile_loss)(
            state.value.model, obs, q, self.expectile
        )
        next_v = state.value.model(batch.next_observations)
        target = td_target(batch.rewards, batch.masks, next_v, self.discount)
        summed = lambda *arguments: td_loss(*arguments, over_ensemble="sum")  # noqa: E731
        critic, metrics = gradient_of(summed)(state.critic.model, obs, actions, target)
        return {"value": value, "critic": critic}, {**value_metrics, **metrics}
