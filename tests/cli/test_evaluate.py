"""Choosing among several actions, the base flow, and films, when a run is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from tests import toy

from deflow import train
from deflow.agents.bc import BC
from deflow.core.errors import DeFlowError
from deflow.training import judge
from deflow.training.evaluate import Evaluator
from deflow.training.policy import choosing, load_family, load_policy
from deflow.training.run_folder import RunFolder

Printed = Callable[..., Any]


def test_the_best_of_several_is_taken_whatever_the_run_was_configured_with(
    finished: Path, printed: Printed
):
    words = ("evaluate", finished, "--episodes", 3, "--workers", 1, "--json")
    plain, one, four = printed(*words), *(printed(*words, "--best-of", n) for n in (1, 4))
    assert (plain["best_of"], one["best_of"], four["best_of"]) == (None, 1, 4)
    assert one["members"] == plain["members"]
    assert four["members"] != plain["members"]
    base = printed(*words, "--policy", "prior", "--best-of", 4)
    assert (base["policy"], base["best_of"]) == ("prior", 4)


def test_more_candidates_have_no_lower_values(finished: Path):
    import jax

    folder = RunFolder.open(finished)
    _, family, states, spec, _ = load_family(folder)
    observations = jnp.asarray(toy.dataset().observations[:32])
    state = jax.tree.map(lambda leaf: leaf[0], states)

    def values(best_of: int) -> list[float]:
        agents = choosing(family.agents, "policy", best_of, folder)
        agent = jax.tree.map(lambda leaf: leaf[0], agents)
        keys = jax.random.split(jax.random.key(0), 32)
        noise = jax.vmap(lambda key: agent.draw_act(key, spec))(keys)
        kinds = agent.act(state, observations, noise), agent.propose(state, observations, noise)
        return [float(agent.value(state, observations, actions).mean()) for actions in kinds]

    (policy, base), (one_policy, one_base) = values(16), values(1)
    assert policy > one_policy
    assert base > one_base


@pytest.fixture(scope="module")
def bc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an agent that has neither candidates nor a base flow."""
    path = tmp_path_factory.mktemp("run") / "bc"
    agent, options = BC(hidden=(8, 8), batch_size=8), {"steps": 10, "chunk": 10, "env": toy.ENV}
    train("toy", agent, dataset=toy.dataset(), run_dir=path, eval_episodes=0, **options)
    return path


def test_what_an_agent_cannot_do_is_said(bc: Path, finished: Path, refused: Callable[..., str]):
    said = refused("evaluate", bc, "--episodes", 1, "--best-of", 4)
    assert "bc does not choose among several actions" in said
    assert "no base flow" in refused("evaluate", bc, "--episodes", 1, "--policy", "prior")
    assert "best_of must be" in refused("evaluate", finished, "--episodes", 1, "--best-of", 0)


# Films -----------------------------------------------------------------------------------------

OBSERVATION = toy.dataset().observations[0]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The first action of every film, where nothing can be drawn in truth."""
    actions: list[Any] = []

    def record(spec: Any, act: Any, seed: int, episode: int, every: int) -> Any:
        where = np.full((1, 1), episode), np.zeros((1, 1), np.int32)
        actions.append(act(OBSERVATION[None, None], *where)[0, 0])
        return np.zeros((3, 8, 8, 3), np.uint8)

    monkeypatch.setattr(judge, "record_episode", record)
    return actions


def test_the_film_shows_the_policy_that_is_judged_and_says_whose(
    finished: Path, tmp_path: Path, printed: Printed, drawn: list[Any]
):
    words = ("evaluate", finished, "--episodes", 1, "--workers", 1, "--json")
    for kind in ("policy", "prior"):
        film = tmp_path / f"{kind}.png"
        document = printed(*words, "--policy", kind, "--video", film)
        assert (document["video"], document["filmed"]) == (str(film), "seed0")
        expected = load_policy(finished, 0, kind=kind)(OBSERVATION)
        np.testing.assert_allclose(drawn[-1], expected, atol=1e-6)
        assert film.is_file()
    assert not np.allclose(*drawn)


def never(*_: Any, **__: Any) -> None:
    raise AssertionError("played before the film was known to be possible")


@pytest.mark.parametrize(
    ("video", "said"),
    [
        ("out.avi", "is no video"),
        ("absent/out.gif", "its folder is absent"),
        ("absent/out.png", "its folder is absent"),
    ],
)
def test_a_film_that_cannot_be_written_is_refused_before_anything_is_played(
    finished: Path,
    tmp_path: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    video: str,
    said: str,
):
    monkeypatch.setattr(Evaluator, "__call__", never)
    monkeypatch.setattr(judge, "record_episode", never)
    assert said in refused("evaluate", finished, "--video", tmp_path / video)


def test_a_film_that_cannot_be_drawn_ends_before_the_other_episodes(
    finished: Path,
    tmp_path: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
):
    def blind(*_: Any, every: int) -> None:
        raise DeFlowError("Nothing can be drawn here.")

    monkeypatch.setattr(Evaluator, "__call__", never)
    monkeypatch.setattr(judge, "record_episode", blind)
    assert "be drawn here" in refused("evaluate", finished, "--video", tmp_path / "out.gif")
    seen = RunFolder(tmp_path)
    spec = RunFolder(finished).read_json("spec.json")
    seen.write_json("spec.json", {**spec, "frame": [8, 8, 9]})
    with pytest.raises(DeFlowError, match="sees frames"):
        judge.check_film(seen, tmp_path / "out.gif")


# Options that belong elsewhere -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--held-out-data", "f.npz"], "--held-out-data is for judging by data"),
        (["--data", "f.npz"], "--data is for judging by data"),
        (["--data-dir", "f"], "--data-dir is for judging by data"),
        (["--fqe-steps", "5"], "--fqe-steps is for judging by data"),
        (["--held-out", "0.5"], "--held-out is for judging by data"),
        (["--episode", "3"], "--episode is for a film"),
        (["--off-policy", "--episodes", "3"], "--episodes is for playing"),
        (["--off-policy", "--workers", "1"], "--workers is for playing"),
        (["--off-policy", "--video", "x.gif"], "--video is for playing"),
        (["--off-policy", "--episode", "1"], "--episode is for playing"),
        (
            ["--off-policy", "--held-out", "0.5", "--held-out-data", "f.npz"],
            "--held-out is for a share of the run's data",
        ),
        (["--episodes", "0"], "episodes must be at least 1"),
        (["--seed", "5000000000"], "seed must be at least 0 and below 4294967296"),
        (["--seed", "-1"], "seed must be at least 0"),
        (["--workers", "-1"], "workers must be at least 0"),
        (["--video", "x.gif", "--episode", "-1"], "episode must be at least 0"),
    ],
)
def test_what_would_change_nothing_or_be_out_of_range_is_refused(
    finished: Path, refused: Callable[..., str], words: list[str], said: str
):
    assert said in refused("evaluate", finished, *words)
