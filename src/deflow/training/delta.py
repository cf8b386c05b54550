"""DeFlow's trust region from the data, before a run begins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from deflow.core.device import require_device
from deflow.core.errors import DeFlowError
from deflow.core.progress import console
from deflow.training.config import TrainConfig
from deflow.training.source import Data, as_own, source


def auto_of(delta: Any) -> str | None:
    """What stands behind the colon of `auto` or `auto:0.5`; None where delta is anything else."""
    word, _, factor = delta.partition(":") if isinstance(delta, str) else ("", "", "")
    return factor if word == "auto" else None


def with_delta(config: TrainConfig, data: Data, factor: str) -> TrainConfig:
    """The configuration with delta estimated: the data's intrinsic action variance times `factor`,
    or where that is empty times the published one.

    Raises `DeFlowError` where the agent has no delta, the run sweeps it, the factor is no number
    above 0, there is no device, or as `validate` and the loading of the data do.
    """
    from deflow.data.iav import intrinsic_action_variance, published_factor

    if not hasattr(config.agent, "delta"):
        raise DeFlowError(f"The agent {config.agent.name} has no delta to estimate.")
    if "delta" in config.over:
        raise DeFlowError("--over gives delta its values, so leave --agent.delta auto.")
    times = _number(factor) if factor else published_factor(config.task)
    config.validate()
    require_device()
    loaded = source(config.task).load(config.data_dir) if data is None else as_own(data).dataset
    found = intrinsic_action_variance(loaded)
    # The variance is of one dimension, on average; a residual may be counted over all of them.
    summed = getattr(config.agent, "residual_reduction", "mean") == "sum"
    dimensions = loaded.actions.shape[1] if summed else 1
    delta = times * found.value * dimensions
    of_all = f", and {dimensions} action dimensions" if summed else ""
    console.print(f"delta {delta:.3g}: {times:g} times {found.value:.3g}, the data's IAV{of_all}.")
    setting: dict[str, Any] = {"delta": delta}
    return replace(config, agent=replace(config.agent, **setting))


def _number(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise DeFlowError(f"delta auto:FACTOR takes a number above 0, as auto:0.1, not {text!r}.")
    return factor
