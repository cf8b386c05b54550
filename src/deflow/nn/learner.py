"""A network together with the moments of its optimiser."""

from __future__ import annotations

from typing import Generic, TypeVar

import equinox as eqx
import jax
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
        updates, moments = rule.update(grads, self.moments)
        return Learner(eqx.apply_updates(self.model, updates), moments)


def polyak(target: Model, online: Model, tau: float | Float[Array, ""]) -> Model:
    """The target network after one step of averaging: tau * online + (1 - tau) * target."""
    averaged: Model = jax.tree.map(lambda t, o: tau * o + (1 - tau) * t, target, online)
    return averaged


def squared_norm(tree: Model) -> Float[Array, ""]:
    """The sum of squares over all leaves."""
    return sum((jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)), start=jnp.zeros(()))
