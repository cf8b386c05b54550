"""`deflow demo` called again: it goes on, or shows what it has found.

Its parts are stood in for, since the whole takes minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deflow.core.types import Spec
from deflow.training.config import TrainConfig
from deflow.training.run_folder import RunFolder

Printed = Callable[..., Any]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, in order; the first training is broken off."""
    done: list[str] = []

    def train(config: TrainConfig) -> None:
        done.append("train")
        assert config.run_dir is not None
        RunFolder.create(config.run_dir, config, {"episodes": 300}, Spec(4, 2, (-1, 0), 5), {})
        raise KeyboardInterrupt

    def judge(folder: RunFolder, **options: Any) -> Any:
        done.append(options["policy"])
        result = SimpleNamespace(success=0.5, episodes=[])
        return SimpleNamespace(policy=options["policy"], results=[result])

    monkeypatch.setattr("deflow.data.generate.generate", lambda *_, **__: done.append("data"))
    monkeypatch.setattr("deflow.training.train.train", train)
    monkeypatch.setattr("deflow.training.train.resume", lambda *_, **__: done.append("resume"))
    monkeypatch.setattr("deflow.training.judge.judge", judge)
    monkeypatch.setattr("deflow.envs.render.rendering_backend", lambda: None)
    return done


def test_it_goes_on_where_it_was_stopped_and_keeps_what_is_finished(
    calls: list[str], tmp_path: Path, printed: Printed, refused: Callable[..., str]
):
    words = ("demo", "--dir", tmp_path / "demo", "--json")
    with pytest.raises(KeyboardInterrupt):
        printed(*words)
    assert calls == ["data", "train"]
    found = printed(*words)
    assert calls == ["data", "train", "data", "resume", "policy", "prior"]
    assert (found["policy"], found["prior"]) == (0.5, 0.5)
    assert printed(*words) == found
    assert len(calls) == 6
    assert "differs in steps" in refused(*words, "--steps", 7)
    assert "learnt from 300 episodes" in refused(*words, "--episodes", 7)
    assert len(calls) == 6
