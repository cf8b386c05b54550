"""A network together with the moments of its optimiser."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

Model = TypeVar("Model")


class Learner(eqx.Module, Generic[Model]):
    """What one optimiser trains. The rule itself is passed in, since its rate may be swept.

    Adam works element by element, so a learner for each network, stepped together, equals the
    official code's single Adam over one tree.
    """

    model: Model
    moments: optax.OptState

    @classmethod
    def create(cls, model: Model, rule: optax.GradientTransformation) -> Learner[Model]:
        return cls(model, rule.init(eqx.filter(model, eqx.is_array)))

    def step(self, grads: Model, rule: optax.GradientTransformation) -> Learner[Model]:
        updates, moments = rule.update(grads, self.moments, eqx.filter(self.model, eqx.is_array))
        return Learner(eqx.apply_updates(self.model, updates), moments)


State = TypeVar("State")


def descend(
    state: State, grads: Mapping[str, Any], rule: Callable[[str], optax.GradientTransformation]
) -> State:
    """The state after one step of each learner that `grads` names, each by its own rule."""
    stepped = {name: getattr(state, name).step(grad, rule(name)) for name, grad in grads.items()}
    return dataclasses.replace(state, **stepped)  # type: ignore[type-var]


def cosine(done: float | Float[Array, ""]) -> Float[Array, ""]:
    """What is left of a rate that falls to 0 on half a cosine, when `done` in [0, 1] has passed."""
    return (1 + jnp.cos(jnp.pi * jnp.asarray(done))) / 2


def polyak(target: Model, online: Model, tau: float | Float[Array, ""]) -> Model:
    """The target network after one step of averaging: tau * online + (1 - tau) * target."""
    averaged: Model = optax.incremental_update(online, target, tau)
    return averaged
