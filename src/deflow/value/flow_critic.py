"""How good an action is, as a flow over returns: from noise to Q(s, a) in several steps.

Agrawalla et al., "floq: Training Critics via Flow-Matching for Scaling Compute in Value-Based RL",
arXiv 2509.06863, as in the official code. A one-pass critic is distilled from the flow for the
actor's loss.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deflow.core.types import Metrics
from deflow.nn.mlp import Ensemble
from deflow.value.td import Critic, beside

BINS, SIGMA = 50, 16.0
"""A return is shown to the network as this many HL-Gauss probabilities, sigma in bin widths."""
MARGIN = 0.01
"""By how much the support of those bins exceeds the range of rewards on either side."""


class ReturnFlow(eqx.Module):
    """The velocity of returns v(s, a, z, t), by an ensemble. Time enters as cos(t)."""

    nets: Ensemble
    reward_range: tuple[float, float] = eqx.field(static=True)

    def velocity(
        self,
        inputs: Float[Array, "*batch both"],
        z: Float[Array, "count *batch"],
        t: Float[Array, "count *batch"],
        discount: float | Float[Array, ""],
    ) -> Float[Array, "count *batch"]:
        """Each member's velocity at its own return."""
        shown = hl_gauss(z, self.reward_range, discount)
        repeated = jnp.broadcast_to(inputs, (*z.shape, inputs.shape[-1]))
        x = jnp.concatenate([repeated, shown, jnp.cos(t)[..., None]], axis=-1)
        each = zip(self.nets.members, x, strict=True)
        return jnp.stack([net(inputs)[..., 0] for net, inputs in each])

    def integrate(
        self,
        inputs: Float[Array, "*batch both"],
        z0: Float[Array, "*batch"],
        steps: int,
        discount: float | Float[Array, ""],
    ) -> Float[Array, "count *batch"]:
        """Each member's return, from the same noise, by Euler's method."""
        count = len(self.nets.members)

        def euler(z: Array, t: Array) -> tuple[Array, None]:
            return z + self.velocity(inputs, z, jnp.full(z.shape, t), discount) / steps, None

        z0 = jnp.broadcast_to(z0, (count, *z0.shape))
        z1, _ = jax.lax.scan(euler, z0, jnp.arange(steps) / steps)
        return z1


class FlowCritic(eqx.Module):
    """The flow, and the one-pass critic that follows its mean."""

    returns: ReturnFlow
    distilled: Critic

    def __call__(
        self, observations: Float[Array, "*some obs"], actions: Float[Array, "*batch act"]
    ) -> Float[Array, "count *batch"]:
        """Values of the distilled critic, which is what an actor climbs."""
        return self.distilled(observations, actions)


class ReturnNoise(NamedTuple):
    """The draws of one loss, uniform in [0, 1): where flows start, and when they are met."""

    target: Float[Array, "samples batch"]
    start: Float[Array, "samples batch"]
    time: Float[Array, "samples batch"]


def hl_gauss(
    z: Float[Array, "*batch"],
    reward_range: tuple[float, float],
    discount: float | Float[Array, ""],
) -> Float[Array, "*batch bins"]:
    """A return as the histogram of a Gaussian around it, normalised over the support."""
    low, high = (
        (r + m) / (1 - discount) for r, m in zip(reward_range, (-MARGIN, MARGIN), strict=True)
    )
    # Further out the Gaussian's mass within the support is zero in floating point, and 0 / 0.
    z = jnp.clip(z, 2 * low - high, 2 * high - low)
    edges = jnp.linspace(low, high, BINS + 1)
    sigma = SIGMA * (high - low) / BINS
    cdf = jax.lax.erf((edges - z[..., None]) / (math.sqrt(2) * sigma))
    return jnp.diff(cdf) / (cdf[..., -1:] - cdf[..., :1])


def starts(
    uniform: Float[Array, "*batch"],
    reward_range: tuple[float, float],
    discount: float | Float[Array, ""],
    coverage: float | Float[Array, ""],
) -> Float[Array, "*batch"]:
    """Initial returns: uniform over a part of the range of possible returns."""
    low, high = (coverage * reward / (1 - discount) for reward in reward_range)
    return low + uniform * (high - low)


def flow_critic_loss(
    critic: FlowCritic,
    observations: Float[Array, "batch obs"],
    actions: Float[Array, "batch act"],
    target: Float[Array, " batch"],
    z0: Float[Array, "samples batch"],
    t: Float[Array, "samples batch"],
    discount: float | Float[Array, ""],
    steps: int,
) -> tuple[Float[Array, ""], Metrics]:
    """Flow matching of returns, summed over the noises, and the distillation of their mean.

    sum_k (v(s, a, z_t, t) - (y - z_0))^2 + (Q_d(s, a) - mean_k z_1)^2, with z_t on the straight
    path from z_0 to y; means over the ensemble and the batch.
    """
    inputs = beside(observations, actions)
    count = len(critic.returns.nets.members)
    z_t = jnp.broadcast_to((1 - t) * z0 + t * target, (count, *z0.shape))
    times = jnp.broadcast_to(t, z_t.shape)
    errors = critic.returns.velocity(inputs, z_t, times, discount) - (target - z0)
    flow_loss = jnp.square(errors).sum(1).mean()
    current = jax.lax.stop_gradient(critic.returns).integrate(inputs, z0, steps, discount)
    q = critic(observations, actions)
    distill_loss = jnp.mean(jnp.square(q - jax.lax.stop_gradient(current.mean((0, 1)))))
    loss = flow_loss + distill_loss
    metrics = {
        "loss": loss,
        "flow_loss": flow_loss,
        "distill_loss": distill_loss,
        "q_mean": q.mean(),
        "q_min": q.min(),
        "q_max": q.max(),
    }
    return loss, {f"critic/{name}": number for name, number in metrics.items()}
