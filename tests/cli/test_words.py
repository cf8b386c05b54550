"""The words of the command line: help, settings by name, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
import tyro

from deflow import DeFlow, api
from deflow.cli import main
from deflow.cli.compare import Compare
from deflow.cli.report import Report
from deflow.cli.running import grid
from deflow.cli.train import Train
from deflow.core.errors import DeFlowError
from deflow.training.config import TrainConfig

Refused = Callable[..., str]


@pytest.mark.parametrize("name", main.COMMANDS)
def test_help_shows_examples_and_exits_with_nothing_wrong(
    name: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        main.run([*name.split(), "--help"])
    assert ended.value.code == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line.startswith(f"deflow {name}")], "no example"
    assert "Examples:" in lines


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("antmaze-medium-play-v2", {"steps INT": "500000", "agent.delta FLOAT": "0.015"}),
        ("cube-double-play-singletask-v0 --agent fql", {"agent.alpha FLOAT": "300.0"}),
        ("antmaze-medium-play-v2 --online-steps 9", {"steps INT": "1000000"}),
        ("", {"steps INT": "1000000", "agent.delta FLOAT": "0.001"}),
    ],
)
def test_a_tasks_help_shows_what_it_would_be_trained_with(
    words: str, shown: dict[str, str], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        main.run(["train", *words.split(), "--help"])
    out = capsys.readouterr().out
    assert "--agent NAME" in out
    for option, default in shown.items():
        assert f"(default: {default})" in out.partition(f"--{option}")[2].partition("--")[0]


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_the_program_alone_lists_its_commands(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert main.run(words) == 0
    out = capsys.readouterr().out
    assert all(f"deflow {name} " in out for name in main.COMMANDS)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]):
    assert main.run(["--version"]) == 0
    assert re.match(r"deflow-rl \d+\.\d+", capsys.readouterr().out)


# Settings --------------------------------------------------------------------------------------

PUZZLE = "puzzle-3x3-play-singletask-v0"


@pytest.mark.parametrize(
    "words",
    [
        [PUZZLE],
        ["--steps", "100", PUZZLE],
        [PUZZLE, "--agent", "deflow"],
        ["--agent=deflow", "--no-share-flow", PUZZLE],
    ],
)
def test_the_published_settings_are_where_a_run_begins(words: list[str]):
    assert Train.parse(words).agent.delta == 0.0005


def test_settings_given_win_over_the_published_ones():
    agent = Train.parse([PUZZLE, "--agent.delta", "0.1", "--agent.hidden", "8", "9"]).agent
    assert (agent.delta, agent.hidden) == (0.1, (8, 9))
    assert agent.discount == 0.99
    assert Train.parse([PUZZLE, "--preset", "none"]).agent == DeFlow()
    giant = "antmaze-giant-navigate-singletask-task3-v0"
    assert Train.parse([giant]).agent.target_aggregation == "min"
    assert Train.parse([giant]).agent.discount == 0.995


def test_a_saved_configuration_is_where_a_run_begins(tmp_path: Path):
    before = TrainConfig("mine", DeFlow(delta=0.7), seeds=(4, 5), over={"tau": (0.1, 0.2)}, steps=7)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(before.to_json()))
    found = Train.parse(["--config", str(file)])
    assert (found.task, found.steps, found.seeds, found.agent.delta) == ("mine", 7, (4, 5), 0.7)
    assert found.over == (("tau=0.1,0.2",),)
    other = Train.parse(["--config", str(file), "--over", "tau=0.5", "rho=1,2"])
    assert grid(other.over) == {"tau": (0.5,), "rho": (1.0, 2.0)}
    joined = Train.parse(["--config", str(file), "--over=tau=0.5"])
    assert grid(joined.over) == {"tau": (0.5,)}
    changed = Train.parse(["--config", str(file), "--steps", "9", "--agent.tau", "0.3"])
    assert (changed.steps, changed.agent.tau, changed.agent.delta) == (9, 0.3, 0.7)


# Refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("data", "`deflow data generate`: make a dataset"),
        ("data --help", "`deflow data iav`"),
        ("train toy --agent IQL", "no agent 'IQL'; did you mean iql"),
        ("trian toy", "no command `deflow trian`; did you mean `deflow train`?"),
        ("data generat x", "did you mean `deflow data generate`?"),
        ("zzz", "`deflow --help` lists them"),
        ("train cube-singel-play-singletask-task1-v0", "cube-single-play-singletask-task1-v0"),
        (f"train {PUZZLE} --agent deflwo", "no agent 'deflwo'; did you mean deflow?"),
        (f"train {PUZZLE} --over delta=a", "--over delta takes numbers"),
        (f"train {PUZZLE} --over delta", "--over takes name=value,value"),
        (f"train {PUZZLE} --over hidden=1,2", "hidden cannot vary"),
        (f"train {PUZZLE} --over delta=0.1 delta=0.2", "names delta more than once: give it once"),
        (f"train {PUZZLE} --over delta=0.1 --agent.delta auto", "leave --agent.delta auto"),
        (f"train {PUZZLE} --over delta=0.1 --agent.delta 0.5", "gives delta one value and --over"),
        (f"train {PUZZLE} --agent.proposals 2", "proposals is for the schedule flow-first"),
        (f"sweep {PUZZLE} --over tau=0.1 --set prior_steps=2", "prior_steps is for the schedule"),
        (f"compare {PUZZLE} --agents deflow --set proposals=2", "proposals is for the schedule"),
        (f"compare {PUZZLE} --agents mine:Mine", "write name=mine:Mine"),
        (f"compare {PUZZLE} --agents fixed=deflow=fql", "deflow=fql"),
        ("report absent --x train_seconds", "--x is for a picture: give --figure too"),
        ("evaluate absent --off-policy --env a:b", "--env is for playing"),
        (f"train {PUZZLE} --updates-per-step 2", "--updates-per-step is for learning online"),
        (f"train {PUZZLE} --overwrite", "--overwrite is for learning online"),
        (f"train {PUZZLE} --agent rlpd --online-steps 9 --steps 5", "--steps is for learning bef"),
        (f"sweep {PUZZLE} --over delta=0.1 --overwrite", "--overwrite is for learning online"),
        ("report", "Name at least one run"),
        (f"train {PUZZLE} --agent.delta 0", "delta must be above 0"),
        (f"train {PUZZLE} --agent.tau nan", "tau must be"),
        (f"train {PUZZLE} --seeds 1 1", "each seed once"),
        (f"train {PUZZLE} --steps 0", "steps must be at least 1"),
        (f"train {PUZZLE} --share-flow", "--schedule flow-first"),
        ("train toy --data absent.npz", "absent.npz"),
        ("train toy --data absent.csv", ".npz"),
        ("train --config absent.json", "absent.json cannot be read"),
        ("train antmaze-large-navigate-v0", "antmaze-large-navigate-singletask"),
        ("resume absent", "absent is not a run folder"),
        ("evaluate absent", "absent is not a run folder"),
        ("report absent", "absent is not a run folder"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_two(
    words: str, said: str, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEFLOW_DATA_DIR", str(tmp_path / "data"))
    heard = refused(*words.split())
    assert said in heard
    assert heard.startswith("deflow: ")
    assert heard.count("\n") == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (f"train {PUZZLE} --agent.detla 3", "--agent.delta"),
        (f"train {PUZZLE} --scheduel joint", "--schedule"),
        (f"train {PUZZLE} --schedule flow_first", "flow-first"),
        (f"train {PUZZLE} --steps many", "--steps"),
        (f"train {PUZZLE} --agent.multiplier_form exponential", "linear"),
        ("train", "STR"),
        ("evaluate", "PATH"),
    ],
)
def test_an_option_that_is_not_there_is_named_beside_what_is(
    words: str, said: str, refused: Refused
):
    assert said in refused(*words.split())


def test_a_mistake_under_json_is_a_document_too(
    refused: Refused, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.argv", ["deflow", "report", "absent", "--json"])
    with pytest.raises(SystemExit):
        main.main()
    assert "not a run folder" in json.loads(capsys.readouterr().out)["error"]


def saved(**fields: object) -> str:
    """A configuration as a run keeps it, with some fields changed."""
    whole = TrainConfig("mine", DeFlow(delta=0.7)).to_json()
    return json.dumps({**whole, **fields})


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "not a configuration"),
        ('{"task": "x"}', "not a configuration"),
        ('{"agent": {"name": "deflow"}, "task": "x"}', "config.json"),
        (saved(agent="deflow"), "config.json"),
        (saved(agent={"name": "deflwo"}), "no agent 'deflwo'"),
        (saved(agent={"name": "deflow", "detla": 1}), "did you mean delta"),
    ],
)
def test_a_configuration_that_is_none_is_refused(
    document: str, said: str, refused: Refused, tmp_path: Path
):
    file = tmp_path / "config.json"
    file.write_text(document)
    assert said in refused("train", "--config", file)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--agent", "fql"), "--config is of a run of deflow, whose settings are not those of fql"),
        (("--preset", "none"), "--preset is for a run that begins without --config"),
    ],
)
def test_what_a_configuration_leaves_no_room_for_is_refused(
    words: tuple[str, ...], said: str, refused: Refused, tmp_path: Path
):
    file = tmp_path / "config.json"
    file.write_text(saved())
    assert said in refused("train", "--config", file, *words)


def test_a_path_may_begin_with_the_home_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    seen: list[Path | None] = []
    monkeypatch.setattr(Report, "run", lambda self: bool(seen.append(self.figure)))
    assert main.run(["report", "a", "--figure=~/a.png"]) == 0
    assert seen == [Path("/home/me/a.png")]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("RESOURCE_EXHAUSTED: Out of memory", "memory): take fewer members or a smaller batch;"),
        ("INTERNAL: it broke", "(INTERNAL: it broke): see `deflow doctor`;"),
    ],
)
def test_what_fails_on_the_device_is_one_sentence_too(
    error: str, said: str, refused: Refused, monkeypatch: pytest.MonkeyPatch
):
    def fail(_: object) -> int:
        raise jax.errors.JaxRuntimeError(error)

    monkeypatch.setattr(main, "run", fail)
    heard = refused("train")
    assert said in heard
    assert "`deflow resume` goes on from there" in heard


def test_a_fault_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch):
    def fail(_: object) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr(main, "run", fail)
    monkeypatch.setattr("sys.argv", ["deflow", "train"])
    with pytest.raises(RuntimeError, match="a bug"):
        main.main()


def test_a_key_press_ends_the_program_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def pressed(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "run", pressed)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "deflow: stopped.\n"


@pytest.mark.parametrize(
    ("command", "error", "said"),
    [
        ("train", OSError(28, "No space left on device"), "A file cannot be read or written (No"),
        ("resume", PermissionError(13, "Permission denied", "runs/x"), "'runs/x' cannot be read"),
        ("report", NotADirectoryError(20, "Not a directory", "a/b.png"), "(Not a directory)."),
        ("train", TimeoutError("timed out"), "(timed out)"),
    ],
)
def test_what_the_system_refuses_is_one_sentence_too(
    command: str, error: OSError, said: str, refused: Refused, monkeypatch: pytest.MonkeyPatch
):
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(main, "run", fail)
    heard = refused(command)
    assert said in heard
    assert ("what was saved is kept, and `deflow resume` goes on" in heard) is (command != "report")


def test_a_figure_that_cannot_be_written_is_said(finished: Path, tmp_path: Path, refused: Refused):
    (tmp_path / "file").touch()
    heard = refused("report", finished, "--json", "--figure", tmp_path / "file" / "a.png")
    assert "file' cannot be read or written" in heard
    for name in ("curves", "curves.txt"):
        assert "--figure must end in .png" in refused("report", finished, "--figure", name)


def test_every_command_can_be_found():
    for name in main.COMMANDS:
        assert main.find([*name.split(), "rest"]) == (name, ["rest"])
    with pytest.raises(DeFlowError):
        main.find(["data"])


# Several agents at once -----------------------------------------------------------------------

PEN = "pen-human-v1"


def comparing(task: str, *words: str) -> dict[str, TrainConfig]:
    command = tyro.cli(Compare, args=[task, "--agents", "fql", "idql", *words])
    return command.configs(Path("nowhere"))


def test_each_agent_takes_the_steps_that_it_is_published_with():
    steps = {name: config.steps for name, config in comparing(PEN).items()}
    assert steps == {"fql": 500_000, "idql": 1_500_000}
    assert {config.steps for config in comparing(PEN, "--steps", "7").values()} == {7}
    assert comparing(PEN, "--budget-steps", "fql=5")["fql"].steps == 5
    assert {c.steps for c in comparing(PEN, "--preset", "none").values()} == {1_000_000}


def test_python_takes_them_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(api, "train_config", lambda config, dataset: config)
    assert api.train(PEN, "fql").steps == 500_000
    assert api.train(PEN, "fql", steps=3).steps == 3
    assert api.train("my-task", "fql").steps == 1_000_000


def test_an_agent_without_published_settings_is_said(capsys: pytest.CaptureFixture[str]):
    comparing("visual-scene-play-singletask-v0")
    said = " ".join(capsys.readouterr().err.split())
    assert "Nothing is published of idql for visual-scene" in said
    assert "of fql" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "0"], "steps must be at least 1"),
        (["--set", "fql.sample=1"], "no setting 'sample'"),
        (["--set", "alpha=3"], "whose setting"),
        (["--set", "idql.actor_hidden=8,8"], "would change nothing"),
        (["--set", "fql.alpha=1", "fql.alpha=2"], "--set names fql.alpha more than once"),
        (["--budget-steps", "fql=1", "fql=2"], "--budget-steps names fql more than once"),
        (["--updates-per-step", "2"], "--updates-per-step is for learning online"),
        (["--overwrite"], "--overwrite is for learning online"),
        (["--columns", "actions=a"], "--columns is for data of your own"),
        (["--normalize-observations"], "--normalize-observations is for data of your own"),
        (["--scale-rewards", "0.1"], "--scale-rewards is for data of your own"),
    ],
)
def test_what_would_be_ignored_is_refused(refused: Refused, words: list[str], said: str):
    assert said in refused("compare", PEN, "--agents", "fql", "idql", *words)
