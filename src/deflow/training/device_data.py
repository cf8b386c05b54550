"""The dataset on the device, and the drawing of batches from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from deflow.core.agent import Agent
from deflow.core.errors import DeFlowError
from deflow.core.memory import available_memory
from deflow.core.types import Batch
from deflow.data.columns import column
from deflow.data.frames import previous_rows, stack_rows

if TYPE_CHECKING:
    from deflow.data.dataset import Dataset


class DeviceData(eqx.Module):
    """Rows of observations on the device. One array of them is kept: the next one is an index.

    Frames [rows, height, width, channels] are kept as bytes, each once: `previous` leads from each
    to the one before, so that a stack is gathered when it is asked for.
    """

    observations: Float[Array, "rows obs"]
    actions: Float[Array, "rows act"]
    rewards: Float[Array, " rows"]
    masks: Float[Array, " rows"]
    rows: Int[Array, " transitions"]
    next_rows: Int[Array, " transitions"]
    previous: Int[Array, " rows"] | None = None

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> DeviceData:
        previous = None
        if dataset.frame:
            _require_room(dataset)
            index = previous_rows(len(dataset.observations), dataset.rows, dataset.next_rows)
            previous = jnp.asarray(index)
        return cls(
            # Bytes that lie as JAX wants them are not copied where the device is this machine.
            observations=jax.device_put(dataset.observations, may_alias=True)
            if dataset.frame
            else jnp.asarray(dataset.observations),
            actions=jnp.asarray(dataset.actions),
            rewards=jnp.asarray(dataset.rewards),
            masks=jnp.asarray(dataset.masks),
            rows=jnp.asarray(dataset.rows),
            next_rows=jnp.asarray(dataset.next_rows),
            previous=previous,
        )

    def observed(self, rows: Int[Array, " some"]) -> Array:
        """What an agent sees in some rows: [some, obs], or stacks [some, h, w, channels]."""
        if self.previous is None:
            return self.observations[rows]
        stacks = [self.observations[each] for each in stack_rows(self.previous, rows)]
        return jnp.concatenate(stacks, axis=-1)

    def sample(self, key: PRNGKeyArray, size: int, fields: dict[str, Array]) -> Batch:
        """`size` transitions, uniformly with replacement, with the row fields beside them, for
        their rows (`name`) and for those of the next observations (`next_name`)."""
        index = jax.random.randint(key, (size,), 0, self.rows.shape[0])
        next_row = self.next_rows[index]
        following = {f"next_{name}": column[next_row] for name, column in fields.items()}
        batch = self.take(index, fields)
        return replace(batch, fields={**batch.fields, **following})

    def take(self, index: Int[Array, " batch"], fields: dict[str, Array]) -> Batch:
        """Some transitions, by their number, with the row fields beside them."""
        row = self.rows[index]
        return Batch(
            observations=self.observed(row),
            actions=self.actions[row],
            rewards=self.rewards[row],
            masks=self.masks[row],
            next_observations=self.observed(self.next_rows[index]),
            fields={name: column[row] for name, column in fields.items()},
        )


def device_columns(dataset: Dataset, agent: Agent, names: Iterable[str]) -> dict[str, Array]:
    """Columns of the data that an agent asks for, each [1, rows, ...]: all members share them."""
    found = {name: column(dataset, name, agent.column_settings(name)) for name in names}
    return {name: jnp.asarray(values)[None] for name, values in found.items()}


def free_memory() -> int:
    """Bytes that may still be taken where arrays live: on the accelerator, else on this machine."""
    device = jax.devices()[0]
    known = device.memory_stats() if device.platform != "cpu" else None
    if not known or "bytes_limit" not in known:
        return available_memory()
    return int(known["bytes_limit"] - known.get("bytes_in_use", 0))


def _require_room(dataset: Dataset) -> None:
    """Raise `DeFlowError` where an accelerator has no room for the frames."""
    device, free = jax.devices()[0], free_memory()
    if device.platform != "cpu" and dataset.nbytes > free:
        raise DeFlowError(
            f"{dataset.name} needs {dataset.nbytes / 1e9:.2f} GB on {device}, which has "
            f"{free / 1e9:.2f} GB free: use a device with more memory, or a smaller set."
        )
