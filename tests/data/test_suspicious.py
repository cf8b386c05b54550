"""What `deflow data inspect` finds wrong, each in data where only that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro
from tests.data import logs

from deflow.cli.data import Inspect
from deflow.core.errors import DeFlowError
from deflow.data.dataset import Dataset
from deflow.data.inspect import inspect
from deflow.data.suspicious import suspicious

Arrays = dict[str, Any]


def arrays() -> Arrays:
    return logs.flat(logs.episodes(lengths=(9, 7, 8, 5)))


def constant_observation(given: Arrays) -> None:
    given["observations"][:, 1] = given["next_observations"][:, 1] = 4.0


def constant_action(given: Arrays) -> None:
    given["actions"][:, 0] = 0.25


def saturated(given: Arrays) -> None:
    given["actions"][::2, 1] = -1.0


def same_rewards(given: Arrays) -> None:
    given["rewards"][:] = -1.0


def never_over(given: Arrays) -> None:
    given["timeouts"] |= given["terminals"]
    given["terminals"][:] = False


def mismatched(given: Arrays) -> None:
    given["next_observations"][[3, 12]] += 1.0


def reset(given: Arrays) -> None:
    """The first two episodes, one cut and one terminated, are followed by the next one's start."""
    for last in (8, 15):
        given["next_observations"][last] = given["observations"][last + 1]


def repeated(given: Arrays) -> None:
    for name, array in given.items():
        given[name] = np.concatenate([array, array[:9]])


FINDINGS = [
    (constant_observation, "observation column 1 never changes"),
    (constant_action, "action column 0 never changes"),
    (saturated, "action column 1 lies at the edge of its box in 52% of rows"),
    (same_rewards, "rewards never vary: all are -1"),
    (never_over, "no row is a termination"),
    (mismatched, "2 next observations (6.9% of rows)"),
    (reset, "the next observation at 1 ends is the next episode's first"),
    (repeated, "1 of 5 episodes repeat another row for row, such as episode 4 episode 0"),
]


@pytest.mark.parametrize(("spoil", "words"), FINDINGS)
def test_each_fault_is_found_alone(spoil: Any, words: str) -> None:
    given = arrays()
    assert suspicious(Dataset.from_arrays(**given)) == []
    spoil(given)
    (found,) = suspicious(Dataset.from_arrays(**given))
    assert words in found


def test_time_limits_that_pass_for_terminations() -> None:
    given = logs.flat(logs.episodes(lengths=(5, 5, 5)))
    given["terminals"] |= given["timeouts"]
    (found,) = suspicious(Dataset.from_arrays(**given))
    assert "every one of 3 episodes terminates after 5 rows" in found


def test_rewards_are_not_judged_where_there_are_none() -> None:
    given = arrays()
    same_rewards(given)
    never_over(given)
    assert suspicious(Dataset.from_arrays(**given), rewarded=False) == []


def test_numbers_that_are_not_finite_are_counted_and_their_episodes_left_out(
    tmp_path: Path,
) -> None:
    given = arrays()
    given["observations"][11, 2] = np.nan
    given["rewards"][[12, 17]] = np.inf
    np.savez(tmp_path / "log.npz", **given)
    report = inspect(str(tmp_path / "log.npz"))
    first, second, third = report["suspicious"]
    assert "observations: 1 numbers are not finite" in first
    assert "row 11, column 2" in first
    assert "rewards: 2 numbers" in second
    assert third.startswith("2 episodes are left out")
    assert report["train"]["transitions"] == 9 + 5
    given["actions"][:, 0] = np.nan
    np.savez(tmp_path / "log.npz", **given)
    with pytest.raises(DeFlowError, match="actions must be finite"):
        inspect(str(tmp_path / "log.npz"))


def test_findings_are_in_the_table_and_in_the_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arrays()
    same_rewards(given)
    given["actions"] *= 3.0
    given["state"] = given.pop("observations")
    np.savez(tmp_path / "log.npz", **given)
    words = [str(tmp_path / "log.npz"), "--columns", "observations=state"]
    assert tyro.cli(Inspect, args=[*words, "--json"]).run() == 0
    findings = json.loads(capsys.readouterr().out)["suspicious"]
    assert any("outside [-1, 1]" in finding for finding in findings)
    assert any("rewards never vary" in finding for finding in findings)
    assert tyro.cli(Inspect, args=words).run() == 0
    table = " ".join(capsys.readouterr().out.split())
    assert "suspicious" in table
    assert "rewards never vary" in table


def test_folders_and_minari_sets_are_inspected(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    pytest.importorskip("pyarrow")
    log = logs.episodes()
    folder = logs.write_minari(tmp_path / "set", log)
    report = inspect(str(folder))
    assert report["suspicious"] == []
    assert report["train"]["fingerprint"] == logs.expected(log)
    push = logs.write_lerobot(tmp_path / "push", log)
    seen = inspect(str(push), columns=["rewards=zero"])
    assert "rewards never vary: all are 0" in seen["suspicious"]
