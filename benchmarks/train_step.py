"""How near a training step comes to its floor: `python benchmarks/train_step.py`.

The floor is one jitted program that holds only the step's matrix products: the same shapes, the
same number, the same threads, the same process; best of 20. The step is DeFlow's own training
chunk (a scan over steps, batches drawn on the device), best and median of several chunks. Writes
`benchmarks/results/train_step.json`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from deflow.agents.deflow import DeFlow
from deflow.core.types import Spec
from deflow.training.device_data import DeviceData
from deflow.training.family import Family, Member, run_chunk
from deflow.training.run_folder import provenance

OBSERVATION, ACTION, BATCH, EULER = 37, 5, 256, 10
Product = tuple[int, int, int]
"""Rows, inner size and columns of one matrix product."""


def layers(rows: int, sizes: Sequence[int]) -> list[Product]:
    """The products of one pass through a network."""
    return [(rows, a, b) for a, b in itertools.pairwise(sizes)]


def backward(products: list[Product], *, weights: bool, inputs: bool) -> list[Product]:
    """The products of the way back: gradients of weights (inner size: the batch) and of inputs.

    `inputs` asks for the gradient of the network's own input too; hidden layers always need theirs.
    """
    found = [(inner, rows, columns) for rows, inner, columns in products] if weights else []
    through = products if inputs else products[1:]
    return found + [(rows, columns, inner) for rows, inner, columns in through]


def step_products(hidden: Sequence[int], schedule: str) -> list[Product]:
    """Every matrix product of one DeFlow step."""
    field = (OBSERVATION + ACTION + 1, *hidden, ACTION)
    refinement = (OBSERVATION + ACTION, *hidden, ACTION)
    critic = (OBSERVATION + ACTION, *hidden, 1)
    one_critic, residual = layers(BATCH, critic), layers(BATCH, refinement)
    products = []
    if schedule == "joint":
        # Proposals for s and s' are integrated together, so each pass has twice the rows.
        products += EULER * layers(2 * BATCH, field)
        flow = layers(BATCH, field)
        products += flow + backward(flow, weights=True, inputs=False)
    products += residual + 2 * one_critic  # the target's action and value
    products += 2 * (one_critic + backward(one_critic, weights=True, inputs=False))
    products += residual + backward(residual, weights=True, inputs=False)  # the refinement
    products += 2 * (one_critic + backward(one_critic, weights=False, inputs=True))
    return products


def gigaflops(products: Sequence[Product]) -> float:
    """Floating-point operations, in 10^9: two for each multiply and add."""
    return sum(2 * m * k * n for m, k, n in products) / 1e9


def floor_program(products: Sequence[Product]) -> tuple[Callable[..., Any], list[Any]]:
    """A jitted program of the products alone, no two on the same pair of operands.

    One number of each product is read, at a place that the compiler does not know: it can neither
    leave out a product, nor compute a part of it, nor one for two.
    """
    copies = math.ceil(math.sqrt(max(Counter(products).values())))
    shapes = sorted({(m, k) for m, k, _ in products} | {(k, n) for _, k, n in products})
    keys = jax.random.split(jax.random.key(0), len(shapes))
    pool = {
        shape: list(jax.random.normal(key, (copies, *shape)))
        for shape, key in zip(shapes, keys, strict=True)
    }

    def program(pool: dict[tuple[int, int], Any], place: Any) -> list[Any]:
        seen: Counter[Product] = Counter()
        numbers = []
        for m, k, n in products:
            left, right = divmod(seen[m, k, n], copies)
            seen[m, k, n] += 1
            result = pool[m, k][left] @ pool[k, n][right]
            numbers.append(jax.lax.dynamic_slice(result, (place, place), (1, 1)))
        return numbers

    return jax.jit(program), [pool, jnp.asarray(0)]


def best(function: Callable[..., Any], arguments: Sequence[Any], repeats: int) -> list[float]:
    """Seconds of each repeat, after one to compile."""
    jax.block_until_ready(function(*arguments))
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - began)
    return seconds


def measure(hidden: tuple[int, ...], schedule: str, members: int, steps: int) -> dict[str, Any]:
    """One row of the table: a family's step beside its floor."""
    spec = Spec(OBSERVATION, ACTION, (-1.0, 0.0), 1)
    agent = DeFlow(hidden=hidden, batch_size=BATCH, integration_steps=EULER)
    family = Family.build(agent, [Member(seed) for seed in range(members)])
    states, data = family.init(spec), toy_data(100_000)
    phase = agent.phases(spec, schedule)[-1]
    shape = (members, data.observations.shape[0], agent.proposals, ACTION)
    fields = {name: jax.random.uniform(jax.random.key(1), shape) for name in phase.fields}

    def chunk(start: Any) -> Any:
        return run_chunk(family, states, data, fields, start, phase, 0, steps)

    products = step_products(hidden, schedule) * members
    program, arguments = floor_program(products)
    floor = best(program, arguments, 20)
    seconds = [s / steps for s in best(chunk, [jnp.asarray(0)], 5)]
    floor += best(program, arguments, 20)
    return {
        "schedule": schedule,
        "hidden": hidden,
        "members": members,
        "gflop_per_step": round(gigaflops(products), 3),
        "step_ms_best": round(1e3 * min(seconds), 3),
        "step_ms_median": round(1e3 * statistics.median(seconds), 3),
        "floor_ms": round(1e3 * min(floor), 3),
        "share_of_floor": round(min(floor) / min(seconds), 3),
        "share_of_floor_median": round(min(floor) / statistics.median(seconds), 3),
    }


def toy_data(rows: int) -> DeviceData:
    """Random rows of the benchmark's shape."""
    keys = jax.random.split(jax.random.key(0), 2)
    index = jnp.arange(rows - 1, dtype=jnp.int32)
    return DeviceData(
        observations=jax.random.normal(keys[0], (rows, OBSERVATION)),
        actions=jax.random.uniform(keys[1], (rows, ACTION), minval=-1, maxval=1),
        rewards=-jnp.ones(rows),
        masks=jnp.ones(rows),
        rows=index,
        next_rows=index + 1,
    )


def main() -> None:
    """Measure every row and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, nargs="+", default=[512] * 4)
    parser.add_argument("--steps", type=int, default=20, help="steps in a chunk")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/train_step.json"))
    options = parser.parse_args()
    rows = []
    for schedule in ("joint", "flow-first"):
        for members in (1, 4):
            rows.append(measure(tuple(options.hidden), schedule, members, options.steps))
            print(rows[-1], flush=True)
    where = provenance({})
    where["command"] = "python benchmarks/train_step.py"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"rows": rows, **where}, indent=2) + "\n")


if __name__ == "__main__":
    main()
