"""How near a training step comes to its floor: `python benchmarks/train_step.py`.

The floor is one jitted program that holds only the step's matrix products: the same shapes, the
same number, the same threads, the same process; best of 40. The step is DeFlow's own training
chunk (a scan over steps, batches drawn on the device), best and median of several chunks. Writes
`benchmarks/results/train_step.json`.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from committed import made_by, write_result
from deflow.agents.deflow import DeFlow
from deflow.core.types import Spec
from deflow.training.device_data import DeviceData
from deflow.training.family import Family, Member, run_chunk

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


class Linear(NamedTuple):
    """A network of matrix products alone: no biases, norms, activations or optimiser."""

    weights: list[Array]
    transposed: list[Array]
    columns: list[Array]
    """What stands for each layer's input, transposed, in the gradients of the weights."""

    @classmethod
    def draw(cls, key: Array, sizes: Sequence[int]) -> Linear:
        """Weights of unit gain, so that nothing grows out of range."""
        shapes = list(itertools.pairwise(sizes))
        keys = jax.random.split(key, len(shapes))
        weights = [jax.random.normal(k, s) / s[0] ** 0.5 for k, s in zip(keys, shapes, strict=True)]
        return cls(weights, [w.T for w in weights], [jnp.ones((a, BATCH)) for a, _ in shapes])

    def forward(self, x: Array) -> Array:
        """One pass."""
        for weight in self.weights:
            x = x @ weight
        return x

    def backward(self, gradient: Array, *, weights: bool, inputs: bool) -> list[Array]:
        """The way back; returns the weights' gradients, then that of the input or first layer."""
        found = []
        for layer in reversed(range(len(self.weights))):
            if weights:
                found.append(self.columns[layer] @ gradient)
            if layer or inputs:
                gradient = gradient @ self.transposed[layer]
        return [*found, gradient]


def floor_program(hidden: Sequence[int], schedule: str, members: int) -> tuple[Any, list[Any]]:
    """A jitted program of a step's matrix products alone, and its arguments.

    Each product reads what the step's own would, a weight or the result before it, as warm in the
    cache as there; but what the step must transpose lies transposed in memory already. Of each
    result that nothing else reads one number is read, at a place that the compiler does not know:
    it can neither leave out a product nor compute a part of it.
    """
    proposal = OBSERVATION + ACTION
    sizes = {
        "field": (proposal + 1, *hidden, ACTION),
        "refinement": (proposal, *hidden, ACTION),
        **{f"{kind}{i}": (proposal, *hidden, 1) for kind in ("critic", "target") for i in (0, 1)},
    }

    def member(nets: dict[str, Linear], x: dict[str, Array], place: Array) -> list[Array]:
        results = []

        def act(name: str, inputs: Array) -> Array:
            """A pass whose output takes the place of an action in what it read."""
            return jax.lax.dynamic_update_slice(inputs, nets[name].forward(inputs), (place, place))

        def euler(_: int, inputs: Array) -> Array:
            return act("field", inputs)

        state = x["proposal"]
        if schedule == "joint":
            integrated = jax.lax.fori_loop(0, EULER, euler, x["pair"])
            loss = nets["field"].forward(integrated[:BATCH])
            results += nets["field"].backward(loss, weights=True, inputs=False)
            state = integrated[BATCH:, :proposal]
        results += [nets[f"target{i}"].forward(act("refinement", state)) for i in (0, 1)]
        for i in (0, 1):
            value = nets[f"critic{i}"].forward(state)
            results += nets[f"critic{i}"].backward(value, weights=True, inputs=False)
        refined = act("refinement", x["own"])
        for i in (0, 1):
            value = nets[f"critic{i}"].forward(refined)
            results += nets[f"critic{i}"].backward(value, weights=False, inputs=True)
        results += nets["refinement"].backward(refined[:, :ACTION], weights=True, inputs=False)
        return [jax.lax.dynamic_slice(result, (place, place), (1, 1)) for result in results]

    def program(family: list[dict[str, Linear]], x: dict[str, Array], place: Array) -> list[Any]:
        return [member(nets, x, place) for nets in family]

    family = [
        {
            name: Linear.draw(jax.random.key(100 * m + i), sizes[name])
            for i, name in enumerate(sizes)
        }
        for m in range(members)
    ]
    rows = {
        "pair": (2 * BATCH, proposal + 1),
        "proposal": (BATCH, proposal),
        "own": (BATCH, proposal),
    }
    x = {name: jax.random.normal(jax.random.key(i), s) for i, (name, s) in enumerate(rows.items())}
    arguments = [family, x, jnp.asarray(0)]
    compiled = jax.jit(program).lower(*arguments).compile()
    counted = (compiled.as_text() or "").count(" dot(")
    # An inner size of 1 needs no sum: XLA multiplies.
    expected = sum(inner > 1 for _, inner, _ in step_products(hidden, schedule)) * members
    if schedule == "joint":
        expected -= (EULER - 1) * (len(hidden) + 1) * members  # the loop's body stands there once
    if counted != expected:
        raise SystemExit(f"The floor's program has {counted} products, not {expected}.")
    return compiled, arguments


def best(function: Callable[..., Any], arguments: Sequence[Any], repeats: int) -> list[float]:
    """Seconds of each repeat, after one to compile."""
    ready: Callable[[Any], Any] = jax.block_until_ready
    ready(function(*arguments))
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        ready(function(*arguments))
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
    program, arguments = floor_program(hidden, schedule, members)
    floor = best(program, arguments, 20)
    seconds = [s / steps for s in best(chunk, [jnp.asarray(0)], 9)]
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
    write_result(options.out, {"rows": rows, **made_by("python benchmarks/train_step.py")})


if __name__ == "__main__":
    main()
