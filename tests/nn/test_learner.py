"""Learners stepped together equal one Adam over the joint tree; the average of parameters."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compiled import once

from deflow.nn.learner import Learner, polyak
from deflow.nn.mlp import MLP

created = once(Learner.create, static_argnums=1)
stepped = once(lambda learner, grads, rule: learner.step(grads, rule), static_argnums=2)
averaged = once(polyak)


@once
def nets() -> dict[str, MLP]:
    keys = jax.random.split(jax.random.key(0))
    return {"a": MLP(3, 2, (4,), key=keys[0]), "b": MLP(5, 1, (3,), layer_norm=True, key=keys[1])}


def gradients(tree, step: int):
    """Any gradients, of sizes that differ by orders of magnitude."""
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(step)
    drawn = [
        (rng.normal(size=leaf.shape) * 10.0 ** (i % 5 - 3)).astype(np.float32)
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, drawn)


def test_learners_stepped_together_equal_one_adam_over_the_joint_tree():
    rule = optax.adam(3e-3)
    joint = nets()
    moments = once(rule.init)(joint)
    learners = {name: created(net, rule) for name, net in joint.items()}

    @once
    def step_joint(joint: Any, moments: Any, grads: Any) -> tuple[Any, Any]:
        updates, moments = rule.update(grads, moments)
        return optax.apply_updates(joint, updates), moments

    for step in range(6):
        grads = gradients(joint, step)
        joint, moments = step_joint(joint, moments, grads)
        learners = {name: stepped(own, grads[name], rule) for name, own in learners.items()}
    for name, net in joint.items():
        same = jax.tree.map(np.array_equal, net, learners[name].model)
        assert all(jax.tree.leaves(same)), name


def test_a_step_does_not_change_the_learner_it_began_from():
    rule = optax.adam(1e-2)
    learner = created(nets()["a"], rule)
    before = jax.tree.map(np.asarray, learner)
    after = learner.step(gradients(learner.model, 0), rule)
    assert eqx.tree_equal(jax.tree.map(np.asarray, learner), before)
    assert not np.allclose(after.model.layers[0].weight, learner.model.layers[0].weight)


@settings(max_examples=30)
@given(tau=st.floats(0, 1, width=32), steps=st.integers(1, 20))
def test_polyak_decays_geometrically_towards_a_still_network(tau: float, steps: int):
    target, online = {"w": jnp.asarray([2.0, -1.0])}, {"w": jnp.asarray([0.5, 3.0])}
    for _ in range(steps):
        target = averaged(target, online, tau)
    share = (1 - tau) ** steps
    expected = share * np.array([2.0, -1.0]) + (1 - share) * np.array([0.5, 3.0])
    np.testing.assert_allclose(target["w"], expected, rtol=1e-4, atol=1e-5)


def test_polyak_at_its_ends():
    target = jax.tree.map(np.asarray, nets()["a"])
    online = jax.tree.map(lambda leaf: leaf + 1, target)
    for tau, expected in ((1.0, online), (0.0, target)):
        found = jax.tree.map(np.asarray, averaged(target, online, tau))
        assert eqx.tree_equal(found, expected)
