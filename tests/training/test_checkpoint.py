"""Checkpoints are whole or not at all, and a damaged one gives way to the one before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.training.runs import assert_same

from deflow import DeFlowError, load_policy
from deflow.data.dataset import Dataset
from deflow.training import checkpoint
from deflow.training.run_folder import RunFolder
from deflow.training.train import resume

TREE = {
    "states": {"w": jnp.arange(6.0).reshape(2, 3), "count": jnp.asarray([3, 4], jnp.int32)},
    "keys": jnp.asarray([[1, 2**32 - 1], [7, 0]], jnp.uint32),
    "alpha": jnp.asarray(0.1),
}


def tree(number: int) -> Any:
    return jax.tree.map(lambda leaf: leaf + leaf.dtype.type(number), TREE)


def equal(one: Any, other: Any) -> bool:
    same = jax.tree.map(
        lambda a, b: a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes(),
        one,
        other,
    )
    return all(jax.tree.leaves(same))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What went to stderr, in one line."""
    return " ".join(capsys.readouterr().err.split())


def test_arrays_and_meta_come_back_bit_for_bit(tmp_path: Path):
    meta = {"position": {"phase": 1, "step": 5, "train_seconds": 0.1}, "members": ["seed0"]}
    final = checkpoint.save(tmp_path, 5, {"arrays": TREE}, meta, keep=2)
    assert final.name == "step-000000005"
    assert checkpoint.damage(final) is None
    assert equal(checkpoint.load(final, jax.eval_shape(lambda: TREE)), TREE)
    assert checkpoint.read_meta(final) == meta
    assert [path.name for path in tmp_path.iterdir()] == [final.name]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_are_kept(tmp_path: Path, keep: int):
    for number in (1, 2, 10, 20):
        checkpoint.save(tmp_path, number, {"arrays": tree(number)}, {}, keep=keep)
    numbers = [int(path.name.removeprefix("step-")) for path in checkpoint.existing(tmp_path)]
    assert numbers == [1, 2, 10, 20][-keep:]
    newest = checkpoint.newest_sound(tmp_path)
    assert equal(checkpoint.load(newest, TREE), tree(20))


def test_a_number_may_be_written_again(tmp_path: Path):
    for number in (1, 2):
        checkpoint.save(tmp_path, 7, {"arrays": tree(number)}, {}, keep=2)
    assert equal(checkpoint.load(checkpoint.newest_sound(tmp_path), TREE), tree(2))


def test_a_kill_while_writing_leaves_the_one_before(tmp_path: Path, monkeypatch: Any):
    checkpoint.save(tmp_path, 1, {"arrays": tree(1)}, {}, keep=1)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    for step in ("_digests", "sync"):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, step, killed)
            with pytest.raises(KeyboardInterrupt):
                checkpoint.save(tmp_path, 2, {"arrays": tree(2)}, {}, keep=1)
        newest = checkpoint.newest_sound(tmp_path)
        assert newest.name == "step-000000001"
        assert equal(checkpoint.load(newest, TREE), tree(1))
    checkpoint.save(tmp_path, 2, {"arrays": tree(2)}, {}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000002"]


# Damage ----------------------------------------------------------------------------------------


def largest(folder: Path) -> Path:
    files = [path for path in (folder / "arrays").rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def truncate(folder: Path) -> None:
    file = largest(folder)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_bit(folder: Path) -> None:
    file = largest(folder)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def remove_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def garble_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"arrays/')


def empty_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")


def make_the_manifest_a_list(folder: Path) -> None:
    (folder / "manifest.json").write_text("[1, 2]")


def remove_a_file(folder: Path) -> None:
    largest(folder).unlink()


def remove_the_meta(folder: Path) -> None:
    (folder / "meta.json").unlink()


def remove_the_arrays(folder: Path) -> None:
    shutil.rmtree(folder / "arrays")


def move_the_clock(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "members": ["another"]}))


DAMAGES = [
    truncate,
    flip_a_bit,
    remove_the_manifest,
    garble_the_manifest,
    empty_the_manifest,
    make_the_manifest_a_list,
    remove_a_file,
    remove_the_meta,
    remove_the_arrays,
    move_the_clock,
]


@pytest.mark.parametrize("harm", DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_it_is_said(
    tmp_path: Path, harm: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
):
    for number in (1, 2):
        checkpoint.save(tmp_path, number, {"arrays": tree(number)}, {"members": []}, keep=2)
    newest = tmp_path / "step-000000002"
    harm(newest)
    assert checkpoint.damage(newest)
    assert checkpoint.newest_sound(tmp_path) == tmp_path / "step-000000001"
    assert "step-000000002 is damaged" in said(capsys)
    harm(tmp_path / "step-000000001")
    with pytest.raises(DeFlowError, match="no usable checkpoint"):
        checkpoint.newest_sound(tmp_path)


@pytest.mark.parametrize("harm", [truncate, flip_a_bit, remove_the_manifest])
def test_a_run_goes_on_from_the_sound_one(
    harm: Callable[[Path], None],
    joint: RunFolder,
    data: Dataset,
    copied: Callable[[RunFolder], RunFolder],
    capsys: pytest.CaptureFixture[str],
):
    folder = copied(joint)
    harm(folder.checkpoints / "step-000000040")
    policy = load_policy(folder.path, seed=0)
    assert policy(np.zeros(4)).shape == (2,)
    assert "step-000000040 is damaged" in said(capsys)
    resume(folder.path, data)
    heard = said(capsys)
    assert "step-000000040 is damaged" in heard
    assert "joint step 30" in heard
    assert_same(folder, joint)
    assert checkpoint.damage(folder.checkpoints / "step-000000040") is None


def test_a_run_without_a_usable_checkpoint_says_so(
    joint: RunFolder, data: Dataset, copied: Callable[[RunFolder], RunFolder]
):
    folder = copied(joint)
    for path in checkpoint.existing(folder.checkpoints):
        flip_a_bit(path)
    before = folder.metrics.read_text()
    for use in (lambda: load_policy(folder.path, seed=0), lambda: resume(folder.path, data)):
        with pytest.raises(DeFlowError, match="no usable checkpoint"):
            use()
    assert folder.metrics.read_text() == before


def test_a_run_that_has_just_begun_says_that_there_is_none_yet(tmp_path: Path):
    (tmp_path / "it" / "checkpoints").mkdir(parents=True)
    with pytest.raises(DeFlowError, match=r"it has no checkpoint yet: wait .*deflow resume .*it`"):
        checkpoint.newest_sound(tmp_path / "it" / "checkpoints")


def test_a_disk_that_is_full_is_said_and_spares_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kept = checkpoint.save(tmp_path, 1, {"arrays": {"a": np.zeros(3)}}, {}, keep=2)

    def full(*_: Any) -> None:
        raise ValueError("Error writing: No space left on device\nmore about it")

    monkeypatch.setattr(checkpoint.ocp.StandardCheckpointer, "save", full)
    with pytest.raises(OSError, match="No space left on device") as refusal:
        checkpoint.save(tmp_path, 2, {"arrays": {"a": np.ones(3)}}, {}, keep=2)
    assert "step-000000002" in str(refusal.value.filename)
    assert checkpoint.newest_sound(tmp_path) == kept
