"""Published settings: every task of the papers' tables, and agents that can be built from them."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deflow.agents.registry import (
    AGENTS,
    from_settings,
    preset,
    published,
    published_steps,
    settings_of,
)
from deflow.core.errors import DeFlowError
from deflow.training.task import env_name

COLUMNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "IQL_alpha": ("iql", ("alpha",)),
    "ReBRAC_alpha1_alpha2": ("rebrac", ("alpha_actor", "alpha_critic")),
    "IDQL_N": ("idql", ("best_of",)),
    "SRPO_beta": ("srpo", ("beta",)),
    "CAC_eta": ("cac", ("eta",)),
    "FAWAC_alpha": ("fawac", ("alpha",)),
    "FBRAC_alpha": ("fbrac", ("alpha",)),
    "IFQL_N": ("ifql", ("best_of",)),
    "FQL_alpha": ("fql", ("alpha",)),
    "DeFlow_delta": ("deflow", ("delta",)),
}
"""The columns of Table 6: whose they are, and which settings."""

MAZES = ("antmaze-large", "antmaze-giant", "humanoidmaze-medium", "humanoidmaze-large")
NAVIGATE = (*MAZES, "antsoccer-arena")
PLAY = ("cube-single", "cube-double", "scene", "puzzle-3x3", "puzzle-4x4")
ANT = [
    "antmaze-umaze-v2",
    "antmaze-umaze-diverse-v2",
    "antmaze-medium-play-v2",
    "antmaze-medium-diverse-v2",
    "antmaze-large-play-v2",
    "antmaze-large-diverse-v2",
]
ADROIT = [
    f"{hand}-{kind}-v1"
    for hand in ("pen", "door", "hammer", "relocate")
    for kind in ("human", "cloned", "expert")
]
STATE = [f"{env}-navigate-singletask-task{n}-v0" for env in NAVIGATE for n in range(1, 6)]
STATE += [f"{env}-play-singletask-task{n}-v0" for env in PLAY for n in range(1, 6)]
VISUAL = [f"visual-{env}-play-singletask-task1-v0" for env in PLAY]
TASKS = [*STATE, *VISUAL, *ANT, *ADROIT]

ONLINE_COLUMNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "IQL": ("iql", ("alpha",)),
    "ReBRAC": ("rebrac", ("alpha_actor", "alpha_critic")),
    "IFQL": ("ifql", ("best_of",)),
    "FQL": ("fql", ("alpha",)),
}
"""Those of Table 7 of FQL, of the runs that go on in the environment; Cal-QL's is of two kinds."""

ANT_EXPERT = "online-ant-xy-v0"

PRIOR_WORK = {"iql", "rebrac"}
"""Systems whose D4RL numbers are other papers' own, with settings that Table 6 does not hold."""


def test_the_tasks_are_those_of_the_table(shared: Path):
    assert sorted(TASKS) == sorted(table6(shared))
    assert len(TASKS) == 73


def table6(shared: Path) -> dict[str, dict[str, Any]]:
    tables = json.loads((shared / "reference" / "paper_tables.json").read_text())
    return {row["task"]: row for row in tables["table6"]}


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_of_the_table_is_held(shared: Path, column: str):
    name, settings = COLUMNS[column]
    entries = published(name)
    for task, row in table6(shared).items():
        entry = entries.get(env_name(task))
        if row[column] is None:
            assert entry is None or name in PRIOR_WORK, task
            continue
        wanted = row[column] if isinstance(row[column], list) else [row[column]]
        assert entry is not None, task
        assert [entry[setting] for setting in settings] == wanted, task


def test_what_the_table_and_the_official_readme_disagree_on_is_noted(shared: Path):
    tables = json.loads((shared / "reference" / "paper_tables.json").read_text())
    file = Path(__file__).parents[2] / "src/deflow/agents/presets/deflow.json"
    raw = json.loads(file.read_text())
    assert len(tables["table6_vs_readmes"]) == 10
    for task, column, ours, _, theirs in tables["table6_vs_readmes"]:
        entry = raw[env_name(task)]
        assert (column, entry["delta"]) == ("DeFlow_delta", ours)
        assert str(theirs) in entry["_note"]


def table7(shared: Path) -> dict[str, dict[str, Any]]:
    tables = json.loads((shared / "reference" / "paper_tables.json").read_text())
    rows: dict[str, dict[str, Any]] = tables["o2o_hyperparameters"]["rows"]
    return rows


@pytest.mark.parametrize("column", ONLINE_COLUMNS)
def test_every_column_of_the_online_table_is_held(shared: Path, column: str):
    name, settings = ONLINE_COLUMNS[column]
    rows = table7(shared)
    assert len(rows) == 15
    for task, row in rows.items():
        if row[column] is None:
            continue
        wanted = row[column] if isinstance(row[column], list) else [row[column]]
        found = preset(name, env_name(task), online=True)
        assert [found[setting] for setting in settings] == wanted, task


def test_cal_qls_weight_is_fixed_where_the_table_has_alpha_and_learnt_where_it_has_beta(
    shared: Path,
):
    for task, row in table7(shared).items():
        found = preset("calql", env_name(task))
        if row["CalQL"] is None:
            assert env_name(task) in published("calql"), "prior work"
            continue
        alpha, beta = row["CalQL"]["alpha"], row["CalQL"]["beta"]
        assert (found.get("alpha"), found.get("gap")) == (alpha, beta), task
        assert found.get("lagrange", False) == (beta is not None), task


def test_the_tasks_that_go_on_online_have_settings_of_all_that_ran_there(shared: Path):
    for task in table7(shared):
        for name in ("calql", "rlpd", "ifql", "fql", "deflow"):
            assert preset(name, env_name(task), online=True), (name, task)


# Without the reference folder ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "task", "settings"),
    [
        ("deflow", "puzzle-4x4-play-singletask-task3-v0", {"delta": 0.0005}),
        ("deflow", "visual-puzzle-3x3-play-singletask-task1-v0", {"delta": 0.0005}),
        ("deflow", "antmaze-large-play-v2", {"delta": 0.015, "target_aggregation": "mean"}),
        ("deflow", "pen-expert-v1", {"delta": 0.01, "target_aggregation": "min"}),
        ("deflow", "hammer-expert-v1", {"delta": 0.001, "target_aggregation": "min"}),
        ("fql", "cube-double-play-singletask-v0", {"alpha": 300}),
        ("fql", "visual-cube-double-play-singletask-task1-v0", {"alpha": 100}),
        ("fql", "antmaze-large-diverse-v2", {"alpha": 3}),
        ("fql", "antmaze-large-navigate-singletask-task1-v0", {"target_aggregation": "min"}),
        ("floq", "antmaze-large-navigate-singletask-task1-v0", {"target_aggregation": "mean"}),
        ("floq", "humanoidmaze-large-navigate-singletask-v0", {"alpha": 20, "batch_size": 512}),
        ("floq", "cube-single-play-singletask-v0", {"alpha": 300, "critic_depth": 2}),
        ("deflow-floq", "puzzle-3x3-play-singletask-v0", {"delta": 0.0005}),
        ("iql", "scene-play-singletask-v0", {"alpha": 10, "hidden": [256] * 4}),
        ("iql", "door-human-v1", {"alpha": 3, "expectile": 0.8}),
        ("rebrac", "cube-single-play-singletask-v0", {"alpha_actor": 1, "alpha_critic": 0}),
        ("rebrac", "pen-cloned-v1", {"alpha_actor": 0.05, "alpha_critic": 0.5}),
        ("rebrac", "antmaze-medium-diverse-v2", {"alpha_actor": 0.001, "discount": 0.999}),
        ("fawac", "antsoccer-arena-navigate-singletask-task4-v0", {"alpha": 10}),
        ("fbrac", "relocate-cloned-v1", {"alpha": 3000}),
        ("ifql", "door-cloned-v1", {"best_of": 128}),
        ("ifql", "antsoccer-arena-navigate-singletask-task4-v0", {"best_of": 64}),
        ("idql", "relocate-cloned-v1", {"best_of": 64, "expectile": 0.7}),
        ("idql", "antmaze-giant-navigate-singletask-v0", {"best_of": 32, "hidden": [512, 512]}),
        ("idql", "scene-play-singletask-v0", {"expectile": 0.9, "hidden": [256, 256]}),
        ("srpo", "antsoccer-arena-navigate-singletask-v0", {"beta": 0.03}),
        ("cac", "antmaze-large-play-v2", {"eta": 4.5, "hidden": [256] * 3}),
        ("df-dir", "antmaze-umaze-v2", {"expectile": 0.9}),
        ("df-div", "pen-human-v1", {"expectile": 0.7}),
    ],
)
def test_settings_known_from_the_papers(name: str, task: str, settings: dict[str, Any]):
    found = published(name)[env_name(task)]
    assert {key: found[key] for key in settings} == settings


@pytest.mark.parametrize(
    ("name", "env", "offline", "online"),
    [
        ("fql", "humanoidmaze-medium", {"alpha": 30}, {"alpha": 100}),
        ("fql", "relocate-cloned-v1", {"alpha": 30000}, {"alpha": 10000}),
        ("fql", "cube-double", {"alpha": 300}, {"alpha": 300}),
        ("ifql", "pen-cloned-v1", {"best_of": 32}, {"best_of": 128}),
        ("floq", "antsoccer-arena", {"alpha": 10}, {"alpha": 30}),
        ("deflow", "cube-double", {"delta": 0.001}, {"delta": 0.001}),
        ("calql", "antsoccer-arena", {"gap": 0.2, "reward_scale": 10}, {"discount": 0.995}),
        ("calql", "antmaze-large-play-v2", {"alpha": 5, "gap": 0.8}, {"reward_bias": 5}),
        ("calql", "pen-cloned-v1", {"alpha": 1, "hidden": [256] * 3}, {"discount": 0.99}),
        ("rlpd", "scene", {"target_aggregation": "mean"}, {"discount": 0.99}),
        ("sac", ANT_EXPERT, {"random_steps": 10_000}, {"discount": 0.99}),
    ],
)
def test_settings_that_differ_online(
    name: str, env: str, offline: dict[str, Any], online: dict[str, Any]
):
    before, after = preset(name, env), preset(name, env, online=True)
    assert {key: before[key] for key in offline} == offline
    assert {key: after[key] for key in online} == online
    assert before.keys() <= after.keys()
    assert not {"steps", "online"} & after.keys()


SYSTEMS = sorted({*AGENTS, "idql", "srpo", "cac", "df-dir", "df-div"})


@pytest.mark.parametrize("name", SYSTEMS)
def test_discounts_targets_and_steps_follow_the_shared_rules(name: str):
    entries = published(name)
    assert entries, f"{name} has no file of published settings"
    far = ("antmaze-giant", "humanoidmaze", "antsoccer")
    assert set(entries) <= {ANT_EXPERT, *(env_name(task) for task in TASKS)}
    for env, entry in entries.items():
        benchmark_of_states = env in (*NAVIGATE, *PLAY)
        if "discount" in entry and not (name == "rebrac" and env in ANT):
            assert entry["discount"] == (0.995 if env.startswith(far) else 0.99), env
        if "target_aggregation" in entry and "floq" not in name:
            careful = env in ("antmaze-large", "antmaze-giant", *ADROIT)
            assert entry["target_aggregation"] == ("min" if careful else "mean"), env
        if name in ("calql", "rlpd", "sac"):
            assert entry["steps"] == (400_000 if env == ANT_EXPERT else 1_000_000), env
            continue
        usual = 1_000_000 if benchmark_of_states else 500_000
        assert entry["steps"] == (1_500_000 if name in ("idql", "srpo") else usual), env


def test_every_task_has_the_settings_of_the_systems_that_ran_on_all_of_them():
    for name in ("fbrac", "ifql", "fql", "deflow"):
        for task in TASKS:
            assert preset(name, env_name(task)), (name, task)
            assert published_steps(name, env_name(task)), (name, task)


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_can_be_built_from_each_of_its_presets(name: str):
    known = {field.name for field in dataclasses.fields(AGENTS[name])}
    for env, online in itertools.product(published(name), (False, True)):
        settings = preset(name, env, online)
        assert settings.keys() <= known, env
        agent = from_settings(name, settings)
        agent.validate()
        for key, value in settings.items():
            assert type(getattr(agent, key)) is type(getattr(AGENTS[name](), key)), (env, key)
            assert getattr(agent, key) == (tuple(value) if isinstance(value, list) else value)


def test_nothing_is_published_for_a_task_of_ones_own():
    for name in AGENTS:
        assert preset(name, "my-own-task") == {}
        assert published_steps(name, "my-own-task") is None
    with pytest.raises(DeFlowError, match="no agent"):
        published_steps("zzz", "cube-single")


@pytest.mark.parametrize(
    ("task", "env"),
    [
        ("antmaze-large-navigate-singletask-task1-v0", "antmaze-large"),
        ("cube-double-play-singletask-v0", "cube-double"),
        ("cube-double-noisy-singletask-task2-v0", "cube-double"),
        ("visual-cube-single-play-singletask-task1-v0", "visual-cube-single"),
        ("antmaze-large-play-v2", "antmaze-large-play-v2"),
        ("pen-human-v1", "pen-human-v1"),
        ("my-play-thing", "my-play-thing"),
        ("toy", "toy"),
    ],
)
def test_the_name_that_published_settings_go_by(task: str, env: str):
    assert env_name(task) == env


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"delta": "small"}, "delta of deflow takes a number, but it is 'small'"),
        ({"batch_size": 2.5}, "batch_size of deflow takes a whole number"),
        ({"normalize_q": 1}, "normalize_q of deflow takes true or false"),
        ({"hidden": 256}, "hidden of deflow takes a list"),
        ({"penalty": 3}, "penalty of deflow takes a word"),
    ],
)
def test_a_setting_of_another_type_is_refused(settings: dict[str, Any], said: str):
    with pytest.raises(DeFlowError, match=said):
        from_settings("deflow", settings)


@pytest.mark.parametrize("value", [300, 300.0, np.float32(300), np.int64(300)])
def test_any_number_may_stand_for_a_fraction(value: float):
    agent = from_settings("fql", {"alpha": value, "batch_size": np.int64(8)})
    assert settings_of(agent)["alpha"] == 300
    assert [type(settings_of(agent)[key]) for key in ("alpha", "batch_size")] == [float, int]


@pytest.mark.parametrize("name", ["deflow", "fql", "ifql"])
def test_d4rl_has_a_million_steps_on_data_before_it_goes_online(name: str):
    for env in ("antmaze-large-diverse-v2", "door-cloned-v1"):
        assert published_steps(name, env) == 500_000
        assert published_steps(name, env, online=True) == 1_000_000
    for online in (False, True):
        assert published_steps(name, "cube-double", online) == 1_000_000


@pytest.mark.parametrize(("own", "taken"), [("floq", "fql"), ("deflow-floq", "deflow")])
def test_settings_are_taken_over_where_nothing_was_run(own: str, taken: str):
    for task in (*ANT, *ADROIT):
        assert preset(own, task) == preset(taken, task), task


@pytest.mark.parametrize("name", ["iql", "rebrac", "ifql", "fql", "deflow", "calql", "rlpd"])
def test_all_hand_over_after_as_many_steps(name: str):
    kinds = [task for task in (*ANT, *ADROIT) if task in ANT or "-cloned" in task]
    assert {published_steps(name, task, online=True) for task in kinds} == {1_000_000}


def test_decision_flow_has_the_discount_of_every_task_from_states():
    for env in map(env_name, STATE):
        discounts = {preset(name, env)["discount"] for name in ("df-dir", "df-div", "fql")}
        assert len(discounts) == 1, env
