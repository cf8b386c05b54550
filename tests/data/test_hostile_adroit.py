"""An expert's file and a file of demonstrations, damaged: one sentence before anything is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.test_adroit import weights
from tests.data.test_hostile import flip, listing

from deflow.core.errors import DeFlowError
from deflow.data.adroit import replay_door_human
from deflow.data.readers.dapg import Expert

Arrays = dict[str, Any]


class Reached(Exception):
    """The file was taken for sound, so that the environment was asked for."""


def make_env(name: str) -> Any:
    raise Reached(name)


def demonstrations() -> Arrays:
    rng = np.random.default_rng(0)
    return {
        "lengths": np.array([3, 2]),
        "actions": rng.uniform(-1, 1, (5, 28)),
        "init_qpos": rng.normal(size=(2, 30)),
        "init_qvel": rng.normal(size=(2, 30)),
        "init_door_body_pos": rng.normal(size=(2, 3)),
    }


def replay(file: Path) -> None:
    with pytest.raises(Reached):
        replay_door_human(file, file.parent / "sets", make_env=make_env)


READERS: dict[str, tuple[Callable[[], Arrays], Callable[[Path], object]]] = {
    "policy": (weights, Expert.read),
    "demonstrations": (demonstrations, replay),
}


def with_nan(array: Any) -> Any:
    spoilt = np.array(array, np.float64)
    spoilt.flat[1] = np.nan
    return spoilt


def said(file: Path, read: Callable[[Path], object]) -> str:
    """The error's words, or none; fails where anything is written or anything else is raised."""
    before, words = listing(file.parent), ""
    try:
        read(file)
    except DeFlowError as error:
        words = str(error)
    assert "\n" not in words
    assert listing(file.parent) == before
    return words


DEMOS, POLICY = "demonstrations", "policy"
APART = "do not fit together"
CASES: list[tuple[str, str, str, Any, str]] = [
    (DEMOS, "real", "lengths", np.array([3.0, 2.0]), "whole numbers"),
    (DEMOS, "scalar", "lengths", np.array(5), "whole numbers"),
    (DEMOS, "square", "lengths", np.array([[3, 2]]), "whole numbers"),
    (DEMOS, "none", "lengths", np.zeros(0, int), "whole numbers"),
    (DEMOS, "zero", "lengths", np.array([5, 0]), "whole numbers"),
    (DEMOS, "wrap", "lengths", np.array([2**63, 2**63 + 5], np.uint64), APART),
    (DEMOS, "more", "lengths", np.array([3, 3]), APART),
    (DEMOS, "flags", "lengths", np.array([True, True]), "whole numbers"),
    (DEMOS, "text", "lengths", np.array(["3", "2"]), "real numbers"),
    (DEMOS, "nan", "actions", with_nan(demonstrations()["actions"]), "actions must be finite"),
    (DEMOS, "huge", "actions", np.full((5, 28), 1e300), "too large for float32"),
    (DEMOS, "complex", "actions", np.full((5, 28), 1j), "real numbers"),
    (DEMOS, "flat", "actions", np.zeros(140), APART),
    (DEMOS, "nan", "init_qpos", with_nan(demonstrations()["init_qpos"]), "init_qpos must be"),
    (DEMOS, "infinite", "init_qvel", np.full((2, 30), np.inf), "init_qvel must be finite"),
    (DEMOS, "text", "init_qpos", np.full((2, 30), "a"), "real numbers"),
    (DEMOS, "complex", "init_door_body_pos", np.full((2, 3), 1j), "real numbers"),
    (DEMOS, "scalar", "init_qpos", np.array(1.0), APART),
    (DEMOS, "nothing", "init_qvel", np.array(np.nan), "init_qvel must be finite"),
    (DEMOS, "objects", "init_qpos", np.array([{}] * 2), "pickle"),
    (POLICY, "scalar", "in_shift", np.array(0.5), APART),
    (POLICY, "scalar", "log_std", np.array(0.5), APART),
    (POLICY, "scalar-nan", "log_std", np.array(np.nan), "log_std must be finite"),
    (POLICY, "one", "out_scale", np.ones(1), APART),
    (POLICY, "square", "in_scale", np.ones((45, 1)), APART),
    (POLICY, "square", "b0", np.ones((8, 1)), APART),
    (POLICY, "flat", "w1", np.ones(8), APART),
    (POLICY, "turned", "w0", np.ones((45, 8)), APART),
    (POLICY, "cube", "w2", np.ones((1, 24, 8)), APART),
    (POLICY, "empty", "in_shift", np.zeros(0), APART),
    (POLICY, "by-zero", "in_scale", np.full(45, np.float32(-1e-8)), "divides by zero"),
    (POLICY, "complex", "w0", np.full((8, 45), 1j), "real numbers"),
    (POLICY, "text", "log_std", np.full(24, "a"), "real numbers"),
    (POLICY, "nan", "w2", with_nan(weights()["w2"]), "w2 must be finite"),
    (POLICY, "objects", "b0", np.array([{}] * 8), "pickle"),
]


@pytest.mark.parametrize(
    ("kind", "key", "value", "words"),
    [
        pytest.param(kind, key, value, words, id=f"{kind}-{key}-{name}")
        for kind, name, key, value, words in CASES
    ],
)
def test_arrays_of_the_wrong_kind_are_refused(
    tmp_path: Path, kind: str, key: str, value: Any, words: str
) -> None:
    arrays, read = READERS[kind][0](), READERS[kind][1]
    np.savez(tmp_path / "file.npz", **{**arrays, key: value})
    found = said(tmp_path / "file.npz", read)
    assert words in found
    assert str(tmp_path / "file.npz") in found


class Diverges:
    """A door whose state is lost after a step or two."""

    unwrapped = property(lambda self: self)

    def reset(self, **options: Any) -> Any:
        self.steps = 0
        return np.zeros(39), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        reward = np.nan if self.steps == 2 else 0.0
        return np.zeros(39), reward, False, False, {}

    def get_env_state(self) -> Arrays:
        return {"qpos": np.zeros(30)}

    def close(self) -> None:
        pass


def test_what_a_simulation_loses_is_not_written(tmp_path: Path) -> None:
    np.savez(tmp_path / "demos.npz", **demonstrations())
    with pytest.raises(DeFlowError, match="episode 0: rewards must be finite: row 1 is nan"):
        replay_door_human(
            tmp_path / "demos.npz", tmp_path / "sets", make_env=lambda name: Diverges()
        )
    assert not list((tmp_path / "sets").glob("*"))


@pytest.mark.parametrize("kind", READERS)
def test_a_truncated_or_lacking_file_is_refused(tmp_path: Path, kind: str) -> None:
    make, read = READERS[kind]
    file = tmp_path / "file.npz"
    np.savez(file, **make())
    assert not said(file, read)
    content = file.read_bytes()
    for share in (0.0, 0.02, 0.3, 0.6, 0.9, 0.999):
        file.write_bytes(content[: int(len(content) * share)])
        assert said(file, read)
    for key in make():
        np.savez(file, **{name: array for name, array in make().items() if name != key})
        assert f"lacks {key}" in said(file, read)


@pytest.mark.parametrize("kind", READERS)
def test_flipped_bytes_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    make, read = READERS[kind]
    for seed in range(24):
        np.savez(tmp_path / "file.npz", **make())
        flip(tmp_path / "file.npz", seed)
        said(tmp_path / "file.npz", read)


@pytest.mark.parametrize("kind", READERS)
def test_what_exceeds_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    make, read = READERS[kind]
    np.savez(tmp_path / "file.npz", **make())
    monkeypatch.setattr("deflow.data.guards.available_memory", lambda: 100)
    assert "of memory available" in said(tmp_path / "file.npz", read)
