"""Minari's own sets are read as Minari reads them, and Minari loads those that we write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from tests.data import logs

from deflow.core.errors import DeFlowError
from deflow.data.dataset import Dataset
from deflow.data.minari_export import export_minari
from deflow.data.own import load_own, read_raw
from deflow.data.readers.documents import environment_of
from deflow.data.readers.raw import Environment
from deflow.data.transforms import Box

pytest.importorskip("h5py")
pytest.importorskip("pyarrow")
minari = pytest.importorskip("minari")

VECTOR, NESTED = "DeFlowVector-v0", "DeFlowNested-v0"


class Walk(gymnasium.Env[Any, Any]):
    """Terminates after seven steps where the episode's number is odd, else is cut after five."""

    def __init__(self, nested: bool = False, gain: float = 1.0) -> None:
        self.nested, self.gain, self.episode = nested, gain, 0
        box = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        # Gymnasium sorts the keys of a dictionary; what is flattened follows its order, not ours.
        self.observation_space: Any = (
            spaces.Dict(
                {
                    "where": box,
                    "goal": spaces.Tuple((spaces.Box(0, 9, (1, 2), np.float32), box)),
                }
            )
            if nested
            else box
        )
        self.action_space = spaces.Box(np.float32([-2, 0]), np.float32([2, 1]))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps, self.episode = 0, self.episode + 1
        self.place = self.np_random.normal(size=2)
        return self._see(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.place = self.place + self.gain * np.asarray(action, np.float64)
        odd = self.episode % 2 == 1
        return self._see(), float(self.place[0]), odd and self.steps == 7, self.steps == 5 * 9, {}

    def _see(self) -> Any:
        if not self.nested:
            return self.place.copy()
        goal = np.float32([[self.steps, 1]])
        return {"where": self.place.copy(), "goal": (goal, -self.place)}


@pytest.fixture(autouse=True)
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    walk = f"{__name__}:Walk"
    gymnasium.register(VECTOR, entry_point=walk, max_episode_steps=5)
    gymnasium.register(NESTED, entry_point=walk, kwargs={"nested": True}, max_episode_steps=8)
    yield
    for name in (VECTOR, NESTED):
        del gymnasium.registry[name]


def collect(env_id: str, layout: str, name: str, episodes: int = 3, **kwargs: Any) -> Any:
    collector = minari.DataCollector(gymnasium.make(env_id, **kwargs), data_format=layout)
    collector.action_space.seed(0)
    for episode in range(episodes):
        collector.reset(seed=episode)
        over = False
        while not over:
            _, _, terminated, truncated, _ = collector.step(collector.action_space.sample())
            over = terminated or truncated
    with pytest.warns(UserWarning, match="is set to None"):
        dataset = collector.create_dataset(name)
    collector.env.close()
    return dataset


@pytest.mark.parametrize("layout", ["hdf5", "arrow", "parquet"])
@pytest.mark.parametrize("env_id", [VECTOR, NESTED])
def test_a_collected_set_is_read_as_minari_reads_it(env_id: str, layout: str) -> None:
    theirs = collect(env_id, layout, "toy/walk-v0")
    space = theirs.observation_space
    own = load_own("minari:toy/walk-v0")
    data, act = own.dataset, own.transforms.action_back
    first = 0
    for episode in theirs.iterate_episodes():
        steps = len(episode.rewards)
        chosen = slice(first, first + steps)
        rows, follows = data.rows[chosen], data.next_rows[chosen]
        each = (see(episode.observations, index) for index in range(steps + 1))
        seen = np.stack([spaces.flatten(space, one) for one in each])
        np.testing.assert_array_equal(data.observations[rows], np.float32(seen[:-1]))
        np.testing.assert_array_equal(data.observations[follows], np.float32(seen[1:]))
        np.testing.assert_allclose(act(data.actions[rows]), episode.actions, atol=3e-5)
        np.testing.assert_array_equal(data.rewards[rows], np.float32(episode.rewards))
        np.testing.assert_array_equal(data.masks[rows], 1.0 - episode.terminations)
        first += steps
    assert first == data.transitions
    assert data.name == "toy/walk-v0"
    assert own.transforms.box == Box((-2.0, 0.0), (2.0, 1.0))
    assert own.environment == Environment(
        env_id, (("nested", True),) if env_id == NESTED else (), flatten=env_id == NESTED
    )


def see(observations: Any, index: int) -> Any:
    """One observation of many."""
    if isinstance(observations, dict):
        return {key: see(value, index) for key, value in observations.items()}
    if isinstance(observations, tuple):
        return tuple(see(value, index) for value in observations)
    return observations[index]


def test_the_environment_keeps_its_arguments_and_its_time_limit() -> None:
    collect(VECTOR, "hdf5", "toy/fast-v1", gain=0.5, max_episode_steps=3)
    environment = read_raw("minari:toy/fast-v1").environment
    assert environment == Environment(VECTOR, (("gain", 0.5), ("max_episode_steps", 3)))
    env = gymnasium.make(environment.env_id, **dict(environment.kwargs))
    assert env.spec is not None
    assert env.spec.max_episode_steps == 3
    assert env.unwrapped.gain == 0.5  # type: ignore[attr-defined]


def test_an_environment_that_is_not_known_is_not_taken(capsys: pytest.CaptureFixture[str]) -> None:
    collect(VECTOR, "hdf5", "toy/walk-v0")
    kept = gymnasium.registry.pop(VECTOR)
    assert load_own("minari:toy/walk-v0").environment is None
    assert "not registered here" in " ".join(capsys.readouterr().err.split())
    gymnasium.registry[VECTOR] = kept


@pytest.mark.parametrize("text", ["[/bold] x", "[red]x[/red]", ":smile:", "[link=x]y"])
def test_a_sets_own_words_are_printed_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    spec = json.dumps({"id": text})
    folder = logs.write_minari(tmp_path / "[i]set", logs.episodes(), env_spec=spec)
    assert read_raw(folder).environment is None
    printed = " ".join(capsys.readouterr().err.split())
    assert f"{text!r} is no plain id" in printed
    assert "[i]set" in printed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": "os:system-v0"}, "no plain id"),
        ({"id": "../../x-v0"}, "no plain id"),
        ({"id": 3}, "no plain id"),
        ({"additional_wrappers": [{"name": "x", "entry_point": "os:system"}]}, "wrapped"),
        ({"kwargs": {"env_id": "evil_module:Env-v0"}}, "no plain values"),
        ({"kwargs": {"xml_file": "/etc/passwd"}}, "no plain values"),
        ({"kwargs": [1]}, "no plain values"),
    ],
)
def test_descriptions_that_could_run_code_are_not_followed(
    change: dict[str, Any], reason: str
) -> None:
    spec = {"id": VECTOR, "entry_point": "os:system", "kwargs": {}, **change}
    environment, why = environment_of(json.dumps(spec), flatten=False)
    assert environment is None
    assert reason in why


def test_the_entry_point_of_a_known_id_is_ours(tmp_path: Path) -> None:
    spec = json.dumps({"id": VECTOR, "entry_point": "os:abort", "kwargs": {"gain": 2.0}})
    folder = logs.write_minari(tmp_path / "set", logs.episodes(), env_spec=spec)
    assert read_raw(folder).environment == Environment(VECTOR, (("gain", 2.0),))


def test_sets_that_are_not_there_are_named(tmp_path: Path) -> None:
    collect(VECTOR, "hdf5", "toy/walk-v0")
    with pytest.raises(DeFlowError, match=r"toy/walk-v0.*minari download toy/walks-v1"):
        read_raw("minari:toy/walks-v1").dataset()
    for name in ("../walk-v0", "/etc/x-v0", "toy/walk", "", "a/../b-v0"):
        with pytest.raises(DeFlowError, match="no id"):
            read_raw(f"minari:{name}").dataset()
    with pytest.raises(DeFlowError, match="its own columns"):
        read_raw("minari:toy/walk-v0", ["rewards=zero"]).dataset()


def test_minari_loads_what_we_write(tmp_path: Path) -> None:
    log = logs.episodes()
    data = Dataset.from_arrays(**logs.flat(log), name="mine")
    environment = Environment(VECTOR, (("gain", 0.5),))
    folder = export_minari(
        data, "mine/log-v3", environment=environment, description="A log.", author="me"
    )
    assert folder == tmp_path / "minari" / "mine" / "log-v3"
    theirs = minari.load_dataset("mine/log-v3")
    assert (theirs.total_episodes, theirs.total_steps) == (4, sum(logs.LENGTHS))
    assert theirs.spec.env_spec.id == VECTOR
    assert theirs.spec.env_spec.kwargs == {"gain": 0.5}
    assert list(minari.list_local_datasets()) == ["mine/log-v3"]
    for ours, episode in zip(log, theirs.iterate_episodes(), strict=True):
        for name in ("observations", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(episode, name), ours[name])
        np.testing.assert_allclose(episode.actions, ours["actions"], atol=1.1e-5)
        assert theirs.action_space.contains(episode.actions[0])
    again = load_own("minari:mine/log-v3")
    assert again.dataset.fingerprint() == data.fingerprint()
    assert again.environment == environment
    assert sorted(path.name for path in (tmp_path / "minari" / "mine").iterdir()) == ["log-v3"]


def test_what_we_write_anew_keeps_its_time_limit(tmp_path: Path) -> None:
    collect(VECTOR, "hdf5", "toy/fast-v2", max_episode_steps=3)
    first = load_own("minari:toy/fast-v2")
    export_minari(first.dataset, "mine/fast-v2", environment=first.environment)
    env = minari.load_dataset("mine/fast-v2").recover_environment()
    assert env.spec.max_episode_steps == 3
    assert load_own("minari:mine/fast-v2").environment == first.environment


def test_sets_in_ogbenchs_manner_keep_their_transitions() -> None:
    arrays = logs.flat(logs.episodes())
    del arrays["next_observations"]
    data = Dataset.from_arrays(**arrays)
    export_minari(data, "mine/log-v0")
    again = read_raw("minari:mine/log-v0").dataset()
    for name in ("actions", "rewards", "masks"):
        np.testing.assert_array_equal(
            getattr(again, name)[again.rows], getattr(data, name)[data.rows]
        )
    np.testing.assert_array_equal(
        again.observations[again.next_rows], data.observations[data.next_rows]
    )


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "there"
    arrays = logs.flat(logs.episodes())
    data = Dataset.from_arrays(**arrays)
    for name in ("log", "../log-v0", "/log-v0"):
        with pytest.raises(DeFlowError, match="no id"):
            export_minari(data, name, root=root)
    with pytest.raises(DeFlowError, match="not registered"):
        export_minari(data, "log-v0", root=root, environment=Environment("Nothing-v0"))
    gymnasium.spec(VECTOR).entry_point = Walk
    with pytest.raises(DeFlowError, match="cannot be written down"):
        export_minari(data, "log-v0", root=root, environment=Environment(VECTOR))
    arrays["next_observations"][1] += 1.0
    with pytest.raises(DeFlowError, match="row 1 is not the observation"):
        export_minari(Dataset.from_arrays(**arrays), "log-v0", root=root)
    frames = {**logs.flat(logs.episodes()), "next_observations": None}
    frames["observations"] = np.zeros((len(frames["rewards"]), 4, 4, 3), np.uint8)
    with pytest.raises(DeFlowError, match="frames"):
        export_minari(Dataset.from_arrays(**frames), "log-v0", root=root)
    assert not root.exists()
    export_minari(data, "log-v0", root=root)
    with pytest.raises(DeFlowError, match="already there"):
        export_minari(data, "log-v0", root=root)
