"""The dataset on the device, and the drawing of batches from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from deflow.core.types import Batch

if TYPE_CHECKING:
    from deflow.data.dataset import Dataset


class DeviceData(eqx.Module):
    """Rows of states on the device. One observation array is kept: the next one is an index."""

    observations: Float[Array, "rows obs"]
    actions: Float[Array, "rows act"]
    rewards: Float[Array, " rows"]
    masks: Float[Array, " rows"]
    rows: Int[Array, " transitions"]
    next_rows: Int[Array, " transitions"]

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> DeviceData:
        return cls(
            observations=jnp.asarray(dataset.observations),
            actions=jnp.asarray(dataset.actions),
            rewards=jnp.asarray(dataset.rewards),
            masks=jnp.asarray(dataset.masks),
            rows=jnp.asarray(dataset.rows),
            next_rows=jnp.asarray(dataset.next_rows),
        )

    def sample(self, key: PRNGKeyArray, size: int, fields: dict[str, Array]) -> Batch:
        """`size` transitions, uniformly with replacement, with the row fields beside them."""
        index = jax.random.randint(key, (size,), 0, self.rows.shape[0])
        row, next_row = self.rows[index], self.next_rows[index]
        extra = {name: column[row] for name, column in fields.items()}
        extra |= {f"next_{name}": column[next_row] for name, column in fields.items()}
        return Batch(
            observations=self.observations[row],
            actions=self.actions[row],
            rewards=self.rewards[row],
            masks=self.masks[row],
            next_observations=self.observations[next_row],
            fields=extra,
        )
