"""Where Q is high around a state, what the behaviour proposes there, and where the policy goes.

Figure 2 of DeFlow (arXiv 2601.10471): a plane through the action space, the critic's contours on
it, actions of the base flow, the policy's actions, and arrows from the ones to the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from deflow.core.agent import Agent, Proposing, State, Valued
from deflow.core.errors import DeFlowError
from deflow.core.types import Spec
from deflow.training.curve import save_figure
from deflow.training.policy import load_family
from deflow.training.run_folder import RunFolder
from deflow.training.source import Again
from deflow.training.train import prepare_again

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

Kind = Literal["principal", "random"]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Plane:
    """A plane through the action space: `center` [act] and two orthonormal `axes` [2, act]."""

    kind: Kind
    center: Floats
    axes: Floats
    shares: tuple[float, float] | None
    """Shares of the base samples' variance along the axes, where these are principal."""

    @classmethod
    def through(cls, samples: Floats, kind: Kind, seed: int = 0) -> Plane:
        """A plane through the mean of some actions [n, act], along their principal directions or
        along random ones. Raises `DeFlowError` where actions have one dimension only."""
        if samples.shape[1] < 2:
            raise DeFlowError("A landscape needs actions of two dimensions or more, not of one.")
        center = samples.mean(0, dtype=np.float32)
        if kind == "random":
            draws = np.random.default_rng(seed).standard_normal((samples.shape[1], 2))
            return cls(kind, center, np.linalg.qr(draws)[0].T.astype(np.float32), None)
        _, sizes, directions = np.linalg.svd(samples - center, full_matrices=True)
        shares = np.square(sizes) / max(np.square(sizes).sum(), 1e-12)
        return cls(kind, center, directions[:2], (float(shares[0]), float(shares[1])))

    def project(self, actions: Floats) -> Floats:
        """Coordinates [n, 2] of the nearest points of the plane."""
        return ((actions - self.center) @ self.axes.T).astype(np.float32)

    def lift(self, coordinates: Floats) -> Floats:
        """Actions [..., act] of points of the plane; some may lie outside the box of actions."""
        return (self.center + coordinates @ self.axes).astype(np.float32)


@dataclass(frozen=True)
class View:
    """One member of a run at one state: its actions there, and its critic."""

    name: str
    agent: Agent
    state: State
    observation: Floats
    base: Floats
    refined: Floats

    def value(self, actions: Floats) -> Floats:
        """Q(s, a) of actions [n, act]."""
        observations = jnp.broadcast_to(self.observation, (len(actions), len(self.observation)))
        return np.asarray(_value(self.agent, self.state, observations, jnp.asarray(actions)))

    def to_json(self) -> dict[str, Any]:
        """The samples, and in figures what the arrows show."""
        return {
            "run": self.name,
            "agent": self.agent.name,
            "base_q": float(self.value(self.base).mean()),
            "refined_q": float(self.value(self.refined).mean()),
            "distance": float(np.linalg.norm(self.refined - self.base, axis=-1).mean()),
            "base": self.base.tolist(),
            "refined": self.refined.tolist(),
        }


def look(
    folders: Sequence[RunFolder],
    index: int,
    *,
    dataset: Again = None,
    samples: int = 64,
    seed: int = 0,
    member: str | None = None,
    data_dir: Path | None = None,
) -> list[View]:
    """Each run's actions at row `index` of the dataset that they all were trained on.

    Base samples are what `propose` makes of the noise that `act` begins with, so each pair shares
    its noise. What an arrow from the one to the other means depends on the agent: DeFlow's is the
    residual that its refinement adds; FQL's joins the flow's action and that of the one-step policy
    distilled from it, for one noise; where the best of several is taken (IFQL, IDQL, `best_of` of
    the others), it goes from the first proposal to the chosen one. `data_dir` is where datasets
    are, if not where the runs found them.

    Raises:
        DeFlowError: an agent has no `value` or no `propose`, there is no such row or member, or
            the runs are of different data.
    """
    for folder in folders:
        _check_accessors(folder)
    views = [_view(folder, index, dataset, samples, seed, member, data_dir) for folder in folders]
    for folder, view in zip(folders, views, strict=True):
        if not np.array_equal(view.observation, views[0].observation):
            raise DeFlowError(
                f"Row {index} of the data of {folder.path} is another state than that of "
                f"{folders[0].path}: compare runs on the same data."
            )
    return views


def _check_accessors(folder: RunFolder) -> None:
    agent = folder.config().agent
    missing = [name for name in ("value", "propose") if not hasattr(agent, name)]
    if missing:
        lost = {"value": "contours of Q", "propose": "base samples"}
        raise DeFlowError(
            f"{folder.path} cannot be shown: its agent {agent.name} has no {' or '.join(missing)}, "
            f"so there are no {' and no '.join(lost[name] for name in missing)} to draw."
        )


def _view(
    folder: RunFolder,
    index: int,
    dataset: Again,
    samples: int,
    seed: int,
    member: str | None,
    data_dir: Path | None,
) -> View:
    config, family, states, spec, _ = load_family(folder)
    config = replace(config, data_dir=data_dir or config.data_dir)
    labels = [own.label for own in family.members]
    if member is not None and member not in labels:
        raise DeFlowError(f"{folder.path} has no member {member}; it has {', '.join(labels)}.")
    job = prepare_again(folder, config, dataset)
    if job.spec.frame:
        raise DeFlowError(
            f"{folder.path} sees frames, around which no landscape is drawn: give a run on states."
        )
    rows = len(job.logged().observations)
    if not 0 <= index < rows:
        raise DeFlowError(f"--state must be a row of the dataset, 0 to {rows - 1}, not {index}.")
    which = labels.index(member) if member else 0
    agent, state = jax.tree.map(lambda leaf: leaf[which], (family.agents, states))
    observation = job.logged().observations[index]
    base, refined = _actions(agent, state, jnp.asarray(observation), seed, samples, spec)
    return View(folder.path.name, agent, state, observation, np.asarray(base), np.asarray(refined))


@eqx.filter_jit
def _actions(
    agent: Agent, state: State, observation: Array, seed: int, samples: int, spec: Spec
) -> tuple[Array, Array]:
    """Base samples [samples, act], and the policy's actions from the same noise."""
    keys = jax.random.split(jax.random.key(seed), samples)
    noise = jax.vmap(lambda key: agent.draw_act(key, spec))(keys)
    several = getattr(agent, "best_of", 1) > 1
    first = jax.tree.map(lambda leaf: leaf[:, :1], noise) if several else noise
    observations = jnp.broadcast_to(observation, (samples, observation.shape[0]))
    assert isinstance(agent, Proposing)
    base = agent.propose(state, observations, first)
    return base, agent.act(state, observations, noise, "evaluate")


@eqx.filter_jit
def _value(agent: Agent, state: State, observations: Array, actions: Array) -> Array:
    assert isinstance(agent, Valued)
    return agent.value(state, observations, actions)


def draw(views: Sequence[View], plane: Plane, path: Path, title: str) -> None:
    """The runs side by side on one plane and within the same limits; each has its own contours.

    Points that lie off the plane are shown by their nearest point on it. Where the plane leaves the
    box of actions there are no contours, since Q was never asked there.
    """
    from matplotlib.figure import Figure

    points = [plane.project(actions) for view in views for actions in (view.base, view.refined)]
    low, high = np.concatenate(points).min(0), np.concatenate(points).max(0)
    # Axes of one scale; never so narrow that rounding would be what one sees.
    middle, half = (low + high) / 2, max(0.6 * float((high - low).max()), 0.02)
    ticks = [np.linspace(m - half, m + half, RESOLUTION, dtype=np.float32) for m in middle]
    grid = np.stack(np.meshgrid(*ticks), axis=-1).reshape(-1, 2)
    actions = plane.lift(grid)
    inside = (np.abs(actions) <= 1).all(-1)

    columns = min(len(views), 3)
    rows = -(-len(views) // columns)
    figure = Figure(figsize=(4.6 * columns, 4.1 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(views) :]:
        axes.set_visible(False)
    for axes, view in zip(panels.flat, views, strict=False):
        q = np.where(inside, view.value(actions), np.nan).reshape(RESOLUTION, RESOLUTION)
        filled = axes.contourf(*ticks, np.ma.masked_invalid(q), levels=14, cmap="viridis")
        figure.colorbar(filled, cax=axes.inset_axes((1.03, 0, 0.05, 1)), label="Q(s, a)")
        _draw_samples(axes, plane.project(view.base), plane.project(view.refined))
        axes.set_facecolor(OUTSIDE)
        axes.set_aspect("equal")
        system = view.agent.name
        axes.set_title(system if view.name == system else f"{view.name} ({system})")
    words = ["random direction {}"] * 2
    if plane.shares:
        words = [
            f"principal direction {{}} ({100 * share:.0f}% of variance)" for share in plane.shares
        ]
    for axes in panels[-1]:
        axes.set_xlabel(words[0].format(1))
    for axes in panels[:, 0]:
        axes.set_ylabel(words[1].format(2))
    figure.suptitle(title)
    figure.legend(handles=_legend(), loc="outside lower center", ncols=4, frameon=False)
    save_figure(figure, path)


BASE: dict[str, Any] = {"marker": "o", "color": "tab:orange", "markeredgecolor": "black"}
POLICY: dict[str, Any] = {"marker": "^", "color": "tab:red", "markeredgecolor": "black"}
DOTS: dict[str, Any] = {"linestyle": "none", "markersize": 3.6, "markeredgewidth": 0.4}
OUTSIDE = "0.88"
RESOLUTION = 160
"""Points of the contours' grid along each axis."""


def _draw_samples(axes: Axes, base: Floats, refined: Floats) -> None:
    options: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.004}
    axes.quiver(*base.T, *(refined - base).T, color="white", zorder=2, **options)
    axes.plot(*base.T, **BASE, **DOTS)
    axes.plot(*refined.T, **POLICY, **DOTS)


def _legend() -> list[Artist]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.patheffects import withStroke

    # White as in the picture, with an edge that shows it on white.
    arrow = Line2D([], [], color="white", label="from base to policy, same noise")
    arrow.set_path_effects([withStroke(linewidth=3, foreground="black")])
    return [
        Line2D([], [], label="base sample", **BASE, **DOTS),
        Line2D([], [], label="policy's action", **POLICY, **DOTS),
        arrow,
        Patch(color=OUTSIDE, label="plane outside the box of actions"),
    ]
