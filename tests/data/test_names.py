"""Task names: read, completed, or refused with the reason and the nearest names."""

from __future__ import annotations

import gymnasium
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deflow.core.errors import DeFlowError
from deflow.data.names import Task, datasets, parse_dataset, parse_task, tasks


def test_a_full_name_is_read() -> None:
    assert parse_task("cube-double-play-singletask-task2-v0") == Task(
        name="cube-double-play-singletask-task2-v0",
        dataset="cube-double-play-v0",
        env_id="cube-double-singletask-task2-v0",
        defaulted=False,
    )


@pytest.mark.parametrize("name", tasks())
def test_every_task_has_an_environment_and_a_dataset(name: str) -> None:
    task = parse_task(name)
    assert task.name == name
    assert not task.defaulted
    assert task.env_id in gymnasium.registry
    assert task.dataset in datasets()
    assert parse_dataset(name) == parse_dataset(task.dataset) == task.dataset


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("pointmaze-medium-navigate-singletask-v0", 1),
        ("antsoccer-arena-navigate-singletask-v0", 4),
        ("cube-single-play-singletask-v0", 2),
        ("scene-play-singletask-v0", 2),
        ("puzzle-3x3-play-singletask-v0", 4),
    ],
)
def test_without_a_number_the_published_default_is_taken(name: str, number: int) -> None:
    task = parse_task(name)
    assert task.defaulted
    assert task.name == name.replace("singletask", f"singletask-task{number}")
    assert parse_dataset(name) == task.dataset


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cube-doubel-play-singletask-v0", "cube-double-play-singletask"),
        ("cube-double-singletask-task2-v0", "cube-double-play-singletask-task2-v0"),
        ("cube-double-play-singletask-task6-v0", "did you mean"),
        ("halfcheetah", "looks like"),
        ("my-task", "Data of your own are given with --data"),
        ("cube-double-play-v0", "goal-conditioned"),
        ("visual-cube-triple-play-singletask-v0", "visual-cube-double-play-singletask-task1-v0"),
        ("visual-cube-double-play-singletask-task2-v0", "did you mean visual-cube-double"),
        ("visual-cube-double-noisy-singletask-v0", "There is no visual task"),
        ("powderworld-easy-play-v0", "discrete actions"),
        ("cube-double-play-oraclerep-v0", "oracle goal representations"),
    ],
)
def test_other_names_are_refused_with_the_reason(name: str, words: str) -> None:
    with pytest.raises(DeFlowError, match=words):
        parse_task(name)


@settings(max_examples=25)
@given(st.text())
def test_no_text_breaks_the_parser(name: str) -> None:
    with pytest.raises(DeFlowError):
        parse_task(name)
    with pytest.raises(DeFlowError):
        parse_dataset(name)
