"""What an interval's numbers say of the steps that were measured."""

from __future__ import annotations

import struct
from dataclasses import fields
from pathlib import Path

import numpy as np
from tensorboardX.proto.event_pb2 import Event

from deflow.envs.lockstep import Steps
from deflow.training.family import members_of
from deflow.training.metrics import MetricsLog, combine
from deflow.training.played import Played
from deflow.training.run_folder import RunFolder


def test_an_interval_keeps_extremes_and_means():
    chunks = [
        {"critic/q": np.array([[1.0], [2.0]]), "critic/q_min": np.array([[3.0], [-1.0]])},
        {"critic/q": np.array([[6.0]]), "critic/q_min": np.array([[0.0]])},
    ]
    assert combine(chunks) == {"critic/q": [3.0], "critic/q_min": [-1.0]}


def test_steps_at_which_a_room_was_not_measured_do_not_count():
    chunk = {
        "actor/q": np.array([[0.0, 0.0], [5.0, 7.0], [0.0, 0.0], [7.0, 9.0]]),
        "actor/q_max": np.array([[0.0, 0.0], [-5.0, -7.0], [0.0, 0.0], [-2.0, -3.0]]),
        "actor/measured": np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]),
        "critic/loss": np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [3.0, 3.0]]),
    }
    found = combine([chunk])
    assert set(found) == {"actor/q", "actor/q_max", "critic/loss"}
    np.testing.assert_allclose(found["actor/q"], [6.0, 8.0])
    np.testing.assert_allclose(found["actor/q_max"], [-2.0, -3.0])
    np.testing.assert_allclose(found["critic/loss"], [1.5, 1.5])
    resting = {name: values[:1] for name, values in chunk.items()}
    assert set(combine([resting])) == {"critic/loss"}


def test_success_online_is_a_share_of_all_episodes():
    """Also where the environment tells of it only where there was one."""
    played, nothing = Played(2), np.full(2, np.nan)

    def ended(*success: float) -> None:
        columns = {f.name: nothing for f in fields(Steps)}
        over = {"ended": np.array([True, True]), "lost": np.array([False, False])}
        played.count(Steps(**{**columns, **over, "success": np.array(success)}))

    ended(1.0, np.nan)
    ended(np.nan, np.nan)
    np.testing.assert_array_equal(played.take(np.zeros(2, int))["online/success"], [0.5, 0.0])
    ended(np.nan, np.nan)
    assert np.isnan(played.take(np.zeros(2, int))["online/success"]).all()


def shown(folder: Path) -> list[int]:
    """The steps of a curve as TensorBoard draws it: where a process begins, what earlier ones wrote
    of its step and of later ones is hidden."""
    steps: list[int] = []
    for file in sorted(folder.glob("events.*")):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            at += 16 + length
            if event.HasField("session_log"):
                steps = [step for step in steps if step < event.step]
            steps += [event.step for value in event.summary.value if value.tag == "critic/loss"]
    return steps


def test_a_resumed_run_shows_every_point_once_though_a_kill_lost_some(tmp_path: Path):
    folder, members = RunFolder(tmp_path), tuple(members_of((0,), {}))
    events = tmp_path / "tensorboard" / "seed0"
    # From the beginning; again, as there was no checkpoint; and from that of step 20, what the
    # second process wrote never having come to the disk.
    for number, (begin, steps) in enumerate([(0, [10, 15]), (0, [10, 20, 30]), (20, [30, 40])]):
        folder.rewind(begin, judged=True)
        log = MetricsLog(folder, members)
        for step in steps:
            log.write({"total_step": step}, {"critic/loss": np.ones(1)}, np.array([True]))
        log.close()
        (newest,) = events.glob("events.out.*")
        newest.rename(events / f"events.{number}")
        (events / "events.1").unlink(missing_ok=True)
    assert shown(events) == [10, 20, 30, 40]
