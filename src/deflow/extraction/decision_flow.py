"""Which action to take, by a flow that is steered at each of its steps: Decision Flow's two losses.

Hu et al., "Decision Flow Policy Optimization", arXiv 2505.20350. **A derivation, not a
reproduction**: neither its code nor its equations could be read, only a summary of what it does,
so that each step below is ours, from the flow Markov decision process that the summary names.

The process. A flow policy makes an action in T Euler steps of length dt = 1/T. Read each as a
decision: the state is (s, a_t, t), the flow's action is a velocity u, the next state is
(s, a_t + u dt, t + dt) for sure. Returns are not discounted. The last step earns Q(s, a_1), for
a_1 cut to the box; the two variants differ in what the steps before it earn.

Values. Both the process and the policy u_theta(s, a_t, t) are deterministic, so that the value of a
state is the sum over the one path that leads on from it, and a rollout gives it exactly:

    V(s, a_t, t) = sum_{t' >= t} r_t' + Q(s, a_1),    V(s, a_1, 1) = Q(s, a_1).

The value at t = 1 is the terminal reward, so no network stands in for it.

DF-dir: no reward on the way. V^f(s, a_t, t) is then Q(s, a_1) itself, and the value of a velocity
is that of the state to which it leads, V^f(s, a_t + u dt, t + dt). Write u = |u| u^ and choose the
direction u^ alone, the length of the step held fixed at h = |u| dt. To first order

    V^f(s, a_t + h u^, t + dt) = V^f(s, a_t, t + dt) + h <grad_a V^f, u^> + O(h^2),

whose gradient along the unit sphere, h (I - u^ u^T) grad_a V^f, vanishes where u^ is parallel to
grad_a V^f: the paper's Lemma 4.2. The length is left to the tie to the behaviour flow u_v:

    L(theta) = -E V^f(s, a_t + h u^, t + dt) / E|V^f| + rho E |u_theta - u_v|^2.

DF-div: each step pays for leaving the behaviour. Were the steps noisy, with a deviation of
sigma sqrt(dt) in each dimension, policy and behaviour would be two Gaussians in every step, with a
divergence of |u_theta - u_v|^2 dt / (2 sigma^2). Take 1 / (2 sigma^2) into rho:

    r_t = -rho |u_theta - u_v|^2 dt,    V^chi(s, a_t, t) = sum of r_t' to come + Q(s, a_1),
    Q^f(s, a_t, t, u) = -rho |u - u_v|^2 dt + V^chi(s, a_t + u dt, t + dt),
    L(theta) = -E Q^f(s, a_t, t, u_theta) + rho E |u_theta - u_v|^2.

So the penalty of a step counts in Q^f and once more beside it, where the summary names rho as the
weight of a divergence in the paper's eq. 14. Squared norms are means over the action's dimensions
throughout, so that rho does not depend on their number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from deflow.core.types import Metrics
from deflow.extraction.climbing import value_loss
from deflow.nn.mlp import MLP

Velocity = Callable[[Array, Array, Array], Array]
"""u(s, a_t, t), with t of shape [*batch, 1]."""


class FlowValue(eqx.Module):
    """The value of a flow's state, or of a velocity in it: one number from several inputs."""

    net: MLP

    def __init__(
        self, in_size: int, hidden: Sequence[int], layer_norm: bool = True, *, key: PRNGKeyArray
    ):
        self.net = MLP(in_size, 1, hidden, layer_norm=layer_norm, key=key)

    def __call__(self, *inputs: Float[Array, "*batch size"]) -> Float[Array, "*batch"]:
        return self.net(jnp.concatenate(inputs, axis=-1))[..., 0]


def rollout(
    policy: Velocity,
    observations: Float[Array, "batch obs"],
    start: Float[Array, "batch act"],
    first: Int[Array, " batch"],
    steps: int,
) -> tuple[Float[Array, "states batch act"], Float[Array, "steps batch act"]]:
    """States at t = 0, dt, ..., 1 and the velocities between them, of rows that set out at step
    `first`: until then they stand still at their start. States are not cut to the box."""

    def step(x: Array, index: Array) -> tuple[Array, tuple[Array, Array]]:
        u = policy(observations, x, jnp.full((len(x), 1), index / steps))
        after = jnp.where((index >= first)[:, None], x + u / steps, x)
        return after, (after, u)

    _, (states, velocities) = jax.lax.scan(step, start, jnp.arange(steps))
    return jnp.concatenate([start[None], states]), velocities


def at_step(sequence: Float[Array, "steps batch *rest"], index: Int[Array, " batch"]) -> Array:
    """Each row's entry at its own step."""
    return sequence[index, jnp.arange(len(index))]


class FlowStates(NamedTuple):
    """States of the flow at which losses look, with the policy's path through each of them.

    They are of two kinds, one above the other: states that the policy passes on its way from noise,
    and states on the data's own paths, since a value of the first kind alone knows nothing around
    the data.
    """

    observations: Float[Array, "both obs"]
    step: Int[Array, " both"]
    t: Float[Array, "both 1"]
    x: Float[Array, "both act"]
    u: Float[Array, "both act"]
    """The policy's velocity there, or the data's."""
    path: Float[Array, "states both act"]
    velocities: Float[Array, "steps both act"]

    @property
    def last(self) -> Array:
        """Whether the next step ends the flow."""
        return self.step == len(self.velocities) - 1


class StatesNoise(NamedTuple):
    """The draws that choose flow states: where paths start, and at which step to look."""

    x0: Float[Array, "batch act"]
    step: Int[Array, " batch"]
    data_x0: Float[Array, "batch act"]
    data_step: Int[Array, " batch"]


def draw_states(key: PRNGKeyArray, shape: tuple[int, int], steps: int) -> StatesNoise:
    """Noise and steps for a batch of actions [batch, act]."""
    keys = jax.random.split(key)
    x0, data_x0 = jax.random.normal(keys[0], (2, *shape))
    step, data_step = jax.random.randint(keys[1], (2, shape[0]), 0, steps)
    return StatesNoise(x0, step, data_x0, data_step)


def flow_states(
    policy: Velocity,
    observations: Float[Array, "batch obs"],
    noise: StatesNoise,
    on_path: Float[Array, "batch act"],
    data_velocities: Float[Array, "batch act"],
    steps: int,
) -> FlowStates:
    """The policy's states at the noise's steps, and `on_path`, the data's paths at theirs, where
    these have `data_velocities`."""
    observations = jnp.concatenate([observations] * 2)
    start = jnp.concatenate([noise.x0, on_path])
    index = jnp.concatenate([noise.step, noise.data_step])
    first = jnp.concatenate([jnp.zeros_like(noise.step), noise.data_step])
    path, velocities = rollout(policy, observations, start, first, steps)
    own = at_step(velocities, index)[: len(noise.x0)]
    return FlowStates(
        observations=observations,
        step=index,
        t=index[:, None] / steps,
        x=at_step(path, index),
        u=jnp.concatenate([own, data_velocities]),
        path=path,
        velocities=velocities,
    )


def divergence(
    velocities: Float[Array, "*batch act"], behavior: Float[Array, "*batch act"]
) -> Float[Array, "*batch"]:
    """|u_theta - u_v|^2, a mean over the action's dimensions."""
    return jnp.square(velocities - behavior).mean(-1)


def returns_to_go(
    rewards: Float[Array, "steps batch"], terminal: Float[Array, " batch"]
) -> Float[Array, "states batch"]:
    """What is still to come at each state of a path: all later rewards and the terminal one."""
    return jnp.cumsum(jnp.concatenate([rewards, terminal[None]])[::-1], axis=0)[::-1]


def path_returns(
    states: FlowStates,
    behavior: Velocity,
    terminal: Callable[[Array], Array],
    rho: float | Float[Array, ""],
) -> Float[Array, " both"]:
    """DF-div: what each state's path still earns, -rho |u_theta - u_v|^2 dt at every step and
    `terminal`, which maps states at t = 1 to [batch], at its end."""
    steps, rows, _ = states.velocities.shape
    times = jnp.broadcast_to(jnp.arange(steps)[:, None, None] / steps, (steps, rows, 1))
    observations = jnp.broadcast_to(states.observations, (steps, *states.observations.shape))
    there = behavior(observations, states.path[:-1], times)
    rewards = -rho * divergence(states.velocities, there) / steps
    return at_step(returns_to_go(rewards, terminal(states.path[-1])), states.step)


def value_ahead(
    states: FlowStates,
    x: Float[Array, "both act"],
    value: Callable[[Array, Array], Array],
    terminal: Callable[[Array], Array],
) -> Float[Array, " both"]:
    """The value of states x one step ahead: `value(x, t + dt)`, at the end the terminal reward."""
    ahead = value(x, states.t + 1 / len(states.velocities))
    return jnp.where(states.last, terminal(x), ahead)


def step_return(
    states: FlowStates,
    behavior: Velocity,
    value: Callable[[Array, Array], Array],
    terminal: Callable[[Array], Array],
    rho: float | Float[Array, ""],
) -> Float[Array, " both"]:
    """DF-div: what Q^f(s, a_t, t, u) should be, -rho |u - u_v|^2 dt + V^chi one step ahead."""
    dt = 1 / len(states.velocities)
    there = behavior(states.observations, states.x, states.t)
    reward = -rho * divergence(states.u, there) * dt
    return reward + value_ahead(states, states.x + dt * states.u, value, terminal)


def flow_value_loss(
    value: FlowValue, inputs: tuple[Array, ...], target: Float[Array, " batch"], name: str
) -> tuple[Float[Array, ""], Metrics]:
    """E (V - target)^2, for V^f, V^chi and Q^f alike; `name` is that of its metrics."""
    v = value(*inputs)
    loss = jnp.square(v - target).mean()
    metrics = {"loss": loss, "mean": v.mean(), "target_mean": target.mean()}
    return loss, {f"{name}/{quantity}": number for quantity, number in metrics.items()}


def unit(u: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
    """The direction of a velocity; of one near zero a shorter vector, so that it has a gradient."""
    return u / jnp.sqrt(jnp.square(u).sum(-1, keepdims=True) + 1e-12)


def direction_loss(
    policy: Velocity,
    next_value: Callable[[Array], Array],
    states: FlowStates,
    behavior: Velocity,
    rho: float | Float[Array, ""],
    *,
    normalize: bool,
) -> tuple[Float[Array, ""], Metrics]:
    """DF-dir: -E V^f(s, a_t + h u^, t + dt) / |V^f| + rho E |u - u_v|^2, h = |u| dt a constant.

    `next_value` maps states at t + dt to V^f [batch].
    """
    where = (states.observations, states.x, states.t)
    u = policy(*where)
    h = jax.lax.stop_gradient(jnp.linalg.norm(u, axis=-1, keepdims=True)) / len(states.velocities)
    values = next_value(states.x + h * unit(u))
    return _steered(values, divergence(u, behavior(*where)).mean(), rho, normalize)


def divergence_loss(
    policy: Velocity,
    flow_critic: Callable[[Array], Array],
    states: FlowStates,
    behavior: Velocity,
    rho: float | Float[Array, ""],
) -> tuple[Float[Array, ""], Metrics]:
    """DF-div: -E Q^f(s, a_t, t, u) + rho E |u - u_v|^2; `flow_critic` maps u to Q^f [batch]."""
    where = (states.observations, states.x, states.t)
    u = policy(*where)
    return _steered(flow_critic(u), divergence(u, behavior(*where)).mean(), rho, normalize=False)


def _steered(
    values: Array, diverged: Array, rho: float | Array, normalize: bool
) -> tuple[Array, Metrics]:
    q_loss = value_loss(values, normalize=normalize)
    loss = q_loss + rho * diverged
    metrics = {"loss": loss, "q_loss": q_loss, "flow_value": values.mean(), "divergence": diverged}
    return loss, {f"actor/{name}": number for name, number in metrics.items()}
