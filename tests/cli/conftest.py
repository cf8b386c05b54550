"""The command line called in this process, on the toy task."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests import toy
from tests.shared_work import copy_of

from deflow.cli import main

OPTIONS: dict[str, Any] = {
    "--env": toy.ENV,
    "--steps": 20,
    "--chunk": 10,
    "--log-every": 10,
    "--checkpoint-every": 10,
    "--eval-every": 10,
    "--eval-episodes": 3,
    "--workers": 2,
    "--agent.batch-size": 16,
    "--agent.integration-steps": 4,
}
TINY = [str(word) for pair in OPTIONS.items() for word in pair] + ["--agent.hidden", "16", "16"]


@pytest.fixture(scope="session")
def training(file: Path) -> Callable[..., int]:
    """`deflow train toy --data FILE` at its smallest, with further words."""

    def call(run_dir: Path, *words: object) -> int:
        return main.run(
            ["train", "toy", "--data", str(file), "--run-dir", str(run_dir), *TINY]
            + [str(word) for word in words]
        )

    return call


@pytest.fixture(scope="session")
def finished(training: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two seeds."""

    def make(path: Path) -> None:
        assert training(path, "--seeds", 0, 1) == 0

    return copy_of(tmp_path_factory, "finished", make)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Call a command and read the one JSON document that is all of its stdout."""

    def call(*words: object) -> Any:
        capsys.readouterr()
        assert main.run([str(word) for word in words]) == 0
        return json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Call the program itself, which must exit with 2; returns what it said on stderr."""

    def call(*words: object) -> str:
        monkeypatch.setattr("sys.argv", ["deflow", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.main()
        assert ended.value.code == 2
        heard = capsys.readouterr()
        assert "Traceback" not in heard.err
        if "--json" not in words:
            assert heard.out == ""
        return heard.err

    return call
