"""Which action to take, by one that climbs Q and the log-density of a diffused behaviour.

Chen et al., "Score Regularized Policy Optimization through Diffusion Behavior" (SRPO),
arXiv 2310.07297, and its official code: the score of the data at a noisy version of the policy's
action says which way they lie, so that a deterministic policy needs no sampler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deflow.core.types import Metrics

ScoreWeight = Literal["vds", "stable", "score"]
"""w(t): sigma_t^2 (published), 1, or alpha_t / sigma_t.

The first counts high noise most, under which near modes are one: without Q a policy then rests
between them, and the value must carry it to the better. The last keeps it at a mode.
"""


def score_weights(
    alpha: Float[Array, "batch 1"], sigma: Float[Array, "batch 1"], kind: ScoreWeight
) -> Float[Array, "batch 1"]:
    """What a time's noise counts for."""
    if kind == "vds":
        return sigma**2
    return jnp.ones_like(sigma) if kind == "stable" else alpha / sigma


def surrogate_loss(
    policy: Callable[[Array], Array],
    eps: Callable[[Array, Array], Array],
    value: Callable[[Array, Array], Array],
    observations: Float[Array, "batch obs"],
    noise: Float[Array, "batch act"],
    scales: tuple[Float[Array, "batch 1"], Float[Array, "batch 1"]],
    beta: float | Float[Array, ""],
    *,
    weight: ScoreWeight = "vds",
    baseline: bool = False,
    normalize_guidance: bool = False,
) -> tuple[Float[Array, ""], Metrics]:
    """E[w(t) eps(s, a_t, t) . a - beta grad_a Q(s, a) . a], a = pi(s), a_t = alpha_t a + sigma_t z.

    Only the trailing a is differentiated: the loss's gradient is the policy's, its value means
    nothing. `eps(s, a_t)` is the behaviour's noise model at the batch's own times and
    `value(s, a)` gives Q [batch]. `baseline` takes the noise z itself off its estimate, which
    leaves the mean and lowers the variance; `normalize_guidance` divides each Q gradient by its
    root mean square over the action's dimensions (`regq` of the official code).
    """
    actions = policy(observations)
    still = jax.lax.stop_gradient(actions)
    alpha, sigma = scales
    predicted = eps(observations, alpha * still + sigma * noise)
    if baseline:
        predicted = predicted - noise
    q, pull_back = jax.vjp(lambda a: value(observations, a), still)
    (guidance,) = pull_back(jnp.ones_like(q))
    if normalize_guidance:
        size = jnp.sqrt(jnp.square(guidance).mean(-1, keepdims=True))
        # Where Q is flat, its squares not even numbers, there is no direction to normalise.
        guidance = guidance / jnp.maximum(size, 1e-18)
    direction = score_weights(alpha, sigma, weight) * predicted - beta * guidance
    loss = (direction * actions).sum(-1).mean()
    metrics = {
        "loss": loss,
        "q": q.mean(),
        "score_norm": jnp.linalg.norm(predicted, axis=-1).mean(),
        "guidance_norm": jnp.linalg.norm(guidance, axis=-1).mean(),
    }
    return loss, {f"actor/{name}": number for name, number in metrics.items()}
