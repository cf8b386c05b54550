"""What several systems share: how they step, their critics, a flow for the behaviour.

Defaults are those of the FQL family's official code: 4x512 GELU, Adam at 3e-4, batches of 256,
targets averaged at 0.005.
"""

from deflow.agents.shared.cached import (
    CachedNoise,
    cached_proposals,
    draw_cached,
    drawn_proposals,
    share_flow,
)
from deflow.agents.shared.continuing import Continuing
from deflow.agents.shared.critical import Bootstrapped, Critical, Implicit
from deflow.agents.shared.delayed import Delayed, zeros_of
from deflow.agents.shared.flowing import (
    Flowing,
    FlowPolicy,
    JointNoise,
)
from deflow.agents.shared.rescaled import Rescaled
from deflow.agents.shared.trained import Grads, Trained, gradient_of

__all__ = [
    "Bootstrapped",
    "CachedNoise",
    "Continuing",
    "Critical",
    "Delayed",
    "FlowPolicy",
    "Flowing",
    "Grads",
    "Implicit",
    "JointNoise",
    "Rescaled",
    "Trained",
    "cached_proposals",
    "draw_cached",
    "drawn_proposals",
    "gradient_of",
    "share_flow",
    "zeros_of",
]
