"""Which action to take, by a one-step policy that is drawn to the flow's actions and to high Q.

Park et al., "Flow Q-Learning", arXiv 2502.02538, eq. 9: nothing is differentiated through the flow.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from deflow.core.types import Metrics
from deflow.extraction.climbing import value_loss
from deflow.nn.mlp import ActionNet


class OneStep(ActionNet):
    """omega(s, z): from noise to an action in one pass, not yet cut to the box."""


def distillation_loss(
    one_step: OneStep,
    value: Callable[[Array, Array], Array],
    observations: Float[Array, "batch obs"],
    noise: Float[Array, "batch act"],
    flow_actions: Float[Array, "batch act"],
    alpha: float | Float[Array, ""],
    *,
    normalize: bool,
) -> tuple[Float[Array, ""], Metrics]:
    """alpha E (omega(s, z) - mu(s, z))^2 - E Q(s, omega(s, z)), for flow actions mu(s, z) as given.

    The square is a mean over the action's dimensions too, as in the official code; the paper's norm
    is a sum, so its alpha is smaller by their number. The flow's action is compared with the output
    before it is cut to the box, Q sees it afterwards.
    """
    outputs = one_step(observations, noise)
    distilled = jnp.mean(jnp.square(outputs - flow_actions))
    q = value(observations, jnp.clip(outputs, -1, 1))
    q_loss = value_loss(q, normalize=normalize)
    loss = alpha * distilled + q_loss
    metrics = {"loss": loss, "q_loss": q_loss, "q": q.mean(), "distill_loss": distilled}
    return loss, {f"actor/{name}": number for name, number in metrics.items()}
