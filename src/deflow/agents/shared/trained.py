"""How an agent steps: gradients for some of its networks, a step of each, targets averaged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from deflow.agents.shared.shifted import shifting
from deflow.core.agent import Agent, Noise, Phase, State, Update
from deflow.core.settings import setting
from deflow.core.types import Batch, Clock, Metrics, Spec
from deflow.nn.encoder import behind_encoder
from deflow.nn.learner import Learner, descend

Grads = Mapping[str, Any]
"""Gradients by the name of the learner that they belong to."""


def gradient_of(loss: Callable[..., Any]) -> Callable[..., tuple[Any, Metrics]]:
    """Gradient in the first argument of a loss that also returns metrics."""
    found: Callable[..., tuple[Any, Metrics]] = eqx.filter_grad(loss, has_aux=True)
    return found


class Trained(Agent):
    """An agent whose update is: gradients for some learners, a step of each, targets averaged."""

    learning_rate: float = setting(3e-4, above=0)
    """Adam's rate, for every network."""
    batch_size: int = setting(256, at_least=1)
    """Transitions in an update."""
    hidden: tuple[int, ...] = setting((512, 512, 512, 512), at_least=1)
    """Widths of the hidden layers."""
    actor_hidden: tuple[int, ...] = setting((), at_least=1)
    """Widths of the actors' hidden layers, where they differ."""
    actor_layer_norm: bool = setting(False)
    """LayerNorm in the actors."""

    def rule(
        self, learner: str, done: float | Float[Array, ""] = 0.0
    ) -> optax.GradientTransformation:
        """How a named learner steps when `done`, from 0 to 1, of its phase has passed.

        Rates may change on the way; the optimiser's state may not change its structure.
        """
        return optax.adam(self.learning_rate)

    def learner(self, model: Any, name: str = "") -> Learner[Any]:
        """A network with a fresh optimiser; named where its rule's state is not that of Adam."""
        return Learner.create(model, self.rule(name))

    def actor(self, kind: type, key: PRNGKeyArray, spec: Spec, **options: Any) -> Learner[Any]:
        """A fresh network of an actor's size."""
        sizes = (spec.observation_dim, spec.action_dim, self.actor_hidden or self.hidden)
        options = {"layer_norm": self.actor_layer_norm, **options}
        make = lambda key: kind(*sizes, **options, key=key)  # noqa: E731
        return self.learner(behind_encoder(spec.frame, key, make))

    def phase(
        self,
        name: str,
        spec: Spec,
        steps: int,
        gradients: Callable[..., tuple[Grads, Metrics]],
        draw: Callable[[Any, PRNGKeyArray, Spec], Noise] = lambda agent, key, spec: (),
        **options: Any,
    ) -> Phase:
        """A phase that follows `gradients(agent, state, batch, noise, clock)`, with the noise of
        `draw(agent, key, spec)`; where observations are frames, they are shifted at random first.
        """
        drawn = lambda agent, key: draw(agent, key, spec)  # noqa: E731
        update = following(gradients, steps)
        phase = Phase(name, steps, self.batch_size, drawn, update, **options)
        return shifting(phase) if spec.frame else phase

    def stepped(
        self, state: State, grads: Grads, clock: Clock, done: float | Float[Array, ""] = 0.0
    ) -> State:
        """The state after one step along the gradients, `done` of the phase having passed."""
        targets = self.averaged(state, grads, clock)
        rule = lambda name: self.rule(name, done)  # noqa: E731
        return dataclasses.replace(descend(state, grads, rule), **targets)

    def averaged(self, state: State, grads: Grads, clock: Clock) -> dict[str, Any]:
        """Parts of the state that follow learners which step now: none."""
        return {}


def following(gradients: Callable[..., tuple[Grads, Metrics]], steps: int) -> Update:
    """The update that takes one of a phase's `steps` along some gradients."""

    def update(
        agent: Trained, state: State, batch: Batch, noise: Noise, clock: Clock
    ) -> tuple[State, Metrics]:
        grads, metrics = gradients(agent, state, batch, noise, clock)
        norms = {f"{name}/grad_norm": optax.tree.norm(grad) for name, grad in grads.items()}
        return agent.stepped(state, grads, clock, clock.step / steps), {**metrics, **norms}

    return update
