"""Learners stepped together equal one Adam over the joint tree; the average of parameters."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import given, settings
from hypothesis import strategies as st

from deflow.nn.learner import Learner, polyak
from deflow.nn.mlp import MLP


def nets() -> dict[str, MLP]:
    keys = jax.random.split(jax.random.key(0))
    return {"a": MLP(3, 2, (4,), key=keys[0]), "b": MLP(5, 1, (3,), layer_norm=True, key=keys[1])}


def gradients(tree, step: int):
    """Any gradients, of sizes that differ by orders of magnitude."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(step), len(leaves))
    drawn = [
        jax.random.normal(key, leaf.shape) * 10.0 ** (i % 5 - 3)
        for i, (key, leaf) in enumerate(zip(keys, leaves, strict=True))
    ]
    return jax.tree.unflatten(structure, drawn)


def test_learners_stepped_together_equal_one_adam_over_the_joint_tree():
    rule = optax.adam(3e-3)
    joint = nets()
    moments = rule.init(joint)
    learners = {name: Learner.create(net, rule) for name, net in joint.items()}
    for step in range(6):
        grads = gradients(joint, step)
        updates, moments = rule.update(grads, moments)
        joint = optax.apply_updates(joint, updates)
        learners = {name: own.step(grads[name], rule) for name, own in learners.items()}
    for name, net in joint.items():
        same = jax.tree.map(np.array_equal, net, learners[name].model)
        assert all(jax.tree.leaves(same)), name


def test_a_step_does_not_change_the_learner_it_began_from():
    rule = optax.adam(1e-2)
    learner = Learner.create(nets()["a"], rule)
    before = jax.tree.map(np.asarray, learner)
    after = learner.step(gradients(learner.model, 0), rule)
    assert eqx.tree_equal(jax.tree.map(np.asarray, learner), before)
    assert not np.allclose(after.model.layers[0].weight, learner.model.layers[0].weight)


@settings(max_examples=30)
@given(tau=st.floats(0, 1, width=32), steps=st.integers(1, 20))
def test_polyak_decays_geometrically_towards_a_still_network(tau: float, steps: int):
    target, online = {"w": jnp.asarray([2.0, -1.0])}, {"w": jnp.asarray([0.5, 3.0])}
    averaged = target
    for _ in range(steps):
        averaged = polyak(averaged, online, tau)
    share = (1 - tau) ** steps
    expected = share * np.array([2.0, -1.0]) + (1 - share) * np.array([0.5, 3.0])
    np.testing.assert_allclose(averaged["w"], expected, rtol=1e-4, atol=1e-5)


def test_polyak_at_its_ends():
    target, online = nets()["a"], jax.tree.map(lambda leaf: leaf + 1, nets()["a"])
    assert eqx.tree_equal(polyak(target, online, 1.0), online)
    assert eqx.tree_equal(polyak(target, online, 0.0), target)
