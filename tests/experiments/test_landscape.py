"""Figure 2: the plane, the samples and what the arrows join."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from tests import toy

from deflow.cli import main
from deflow.core.errors import DeFlowError
from deflow.experiments import landscape
from deflow.experiments.landscape import Plane, draw, look
from deflow.training.config import TrainConfig
from deflow.training.policy import load_family
from deflow.training.run_folder import RunFolder

Trained = Callable[..., RunFolder]


@pytest.fixture(scope="module")
def deflow(trained: Trained) -> RunFolder:
    return trained("deflow", integration_steps=4)


@pytest.fixture(scope="module")
def fql(trained: Trained) -> RunFolder:
    return trained("fql", integration_steps=4)


@pytest.fixture(scope="module")
def bc(trained: Trained) -> RunFolder:
    return trained("bc")


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(2, 8),
    kind=st.sampled_from(["principal", "random"]),
)
def test_a_plane_is_orthonormal_and_its_points_are_their_own_projections(
    seed: int, size: int, kind: landscape.Kind
):
    rng = np.random.default_rng(seed)
    plane = Plane.through(rng.uniform(-1, 1, (20, size)).astype(np.float32), kind, seed)
    np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-5)
    points = rng.uniform(-1, 1, (5, 2)).astype(np.float32)
    np.testing.assert_allclose(plane.project(plane.lift(points)), points, atol=1e-5)


@given(seed=st.integers(0, 2**32 - 1))
def test_principal_directions_hold_samples_that_lie_in_a_plane(seed: int):
    rng = np.random.default_rng(seed)
    flat = rng.standard_normal((30, 2)) * [0.5, 0.1] @ rng.standard_normal((2, 5)) + 0.3
    plane = Plane.through(flat.astype(np.float32), "principal")
    np.testing.assert_allclose(plane.lift(plane.project(flat)), flat, atol=1e-4)
    assert plane.shares is not None
    assert sum(plane.shares) == pytest.approx(1, abs=1e-4)
    assert plane.shares[0] >= plane.shares[1]


def test_samples_that_are_all_alike_still_have_a_plane():
    plane = Plane.through(np.full((4, 3), 0.5, np.float32), "principal")
    np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-6)


def test_actions_of_one_dimension_have_none():
    with pytest.raises(DeFlowError, match="two dimensions"):
        Plane.through(np.zeros((4, 1), np.float32), "principal")


def test_deflows_arrow_is_its_residual_and_contours_are_its_critic(deflow: RunFolder):
    (view,) = look([deflow], 7, dataset=toy.dataset(), samples=5, member="seed1")
    _, family, states, _, _ = load_family(deflow)
    agent, state = jax.tree.map(lambda leaf: leaf[1], (family.agents, states))
    observation = toy.dataset().observations[7]
    assert np.array_equal(view.observation, observation)
    observations = jnp.tile(observation, (5, 1))
    np.testing.assert_allclose(
        view.refined, agent.refined(state, observations, jnp.asarray(view.base)), atol=1e-5
    )
    np.testing.assert_allclose(
        view.value(view.base), agent.value(state, observations, view.base), rtol=1e-5
    )
    assert view.to_json()["distance"] > 0


@pytest.mark.slow
def test_fqls_arrow_joins_two_actions_of_one_noise(fql: RunFolder):
    (view,) = look([fql], 0, dataset=toy.dataset(), samples=6)
    _, family, states, spec, _ = load_family(fql)
    agent, state = jax.tree.map(lambda leaf: leaf[0], (family.agents, states))
    keys = jax.random.split(jax.random.key(0), 6)
    noise = jax.vmap(lambda key: agent.draw_act(key, spec))(keys)
    observations = jnp.tile(toy.dataset().observations[0], (6, 1))
    np.testing.assert_allclose(view.base, agent.base(state, observations, noise), atol=1e-5)
    np.testing.assert_allclose(view.refined, agent.sample(state, observations, noise), atol=1e-5)


def test_with_several_candidates_the_arrow_leads_from_the_first_to_the_best(fql: RunFolder):
    _, family, states, spec, _ = load_family(fql)
    agent, state = jax.tree.map(lambda leaf: leaf[0], (family.agents, states))
    agent = dataclasses.replace(agent, best_of=3)
    observation = jnp.asarray(toy.dataset().observations[0])
    base, chosen = landscape._actions(agent, state, observation, 0, 4, spec)
    keys = jax.random.split(jax.random.key(0), 4)
    noise = jax.vmap(lambda key: agent.draw_act(key, spec))(keys)
    observations = jnp.tile(observation, (4, 1))
    np.testing.assert_allclose(base, agent.base(state, observations, noise[:, 0]), atol=1e-5)
    np.testing.assert_allclose(chosen, agent.act(state, observations, noise), atol=1e-5)


def test_runs_side_by_side_share_plane_and_limits(
    deflow: RunFolder, fql: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    views = look([deflow, fql], 3, dataset=toy.dataset(), samples=8)
    drawn: list[Figure] = []
    monkeypatch.setattr(landscape, "save_figure", lambda figure, path: drawn.append(figure))
    draw(views, Plane.through(views[0].base, "random", 1), Path("any.png"), "a title")
    one, two = [axes for axes in drawn[0].axes if axes.get_title()]
    assert [one.get_title(), two.get_title()] == ["deflow", "fql"]
    assert one.get_xlim() == two.get_xlim()
    assert one.get_ylim() == two.get_ylim()
    words = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert words[:2] == ["base sample", "policy's action"]
    bars = [axes for panel in (one, two) for axes in panel.child_axes]
    assert [bar.get_ylabel() for bar in bars] == ["Q(s, a)"] * 2


def test_the_command_draws_and_tells(
    deflow: RunFolder,
    fql: RunFolder,
    file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "sub" / "figure.png"
    line = ["landscape", deflow.path, fql.path, "--state", 5, "--samples", 9, "--out", out]
    words = [str(word) for word in [*line, "--data", file]]
    assert main.run([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert np.shape(document["runs"][0]["base"]) == (9, toy.ACT)
    assert [run["agent"] for run in document["runs"]] == ["deflow", "fql"]
    assert np.shape(document["plane"]["axes"]) == (2, toy.ACT)
    with Image.open(out) as picture:
        assert picture.width > 1.5 * picture.height > 600
    assert main.run(words) == 0
    assert "Q of policy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--state", 10**6], "row of the dataset"),
        (["--state", -1], "row of the dataset"),
        (["--state", 0, "--member", "seed9"], "no member seed9; it has seed0, seed1"),
        (["--state", 0, "--samples", 1], "samples must be"),
        (["--state", 0, "--out", "a.gif"], "--out must end"),
    ],
)
def test_what_is_wrong_is_said(deflow: RunFolder, file: Path, words: list[object], said: str):
    line = ["landscape", deflow.path, "--data", file, *words]
    with pytest.raises(DeFlowError, match=said):
        main.run([str(word) for word in line])


def test_an_agent_without_a_critic_or_a_base_is_refused(bc: RunFolder, deflow: RunFolder):
    with pytest.raises(DeFlowError, match="agent bc has no value or propose"):
        look([deflow, bc], 0, dataset=toy.dataset())


def test_other_data_are_refused(deflow: RunFolder):
    with pytest.raises(DeFlowError, match="other data"):
        look([deflow], 0, dataset=toy.dataset(seed=5))
    with pytest.raises(DeFlowError, match="your own data"):
        look([deflow], 0)


def test_data_that_have_moved_are_looked_for_where_they_are(
    deflow: RunFolder, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[Path | None] = []

    def prepare(folder: RunFolder, config: TrainConfig, dataset: object) -> None:
        asked.append(config.data_dir)
        raise DeFlowError("that was all")

    monkeypatch.setattr(landscape, "prepare_again", prepare)
    line = ["landscape", deflow.path, "--state", 0, "--data", file, "--data-dir", tmp_path]
    with pytest.raises(DeFlowError, match="that was all"):
        main.run([str(word) for word in line])
    assert asked == [tmp_path]
