"""Making OGBench's own sets on this machine: `deflow data generate`."""

from __future__ import annotations

import dataclasses
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import Progress

from deflow.core.errors import DeFlowError
from deflow.core.files import write_json
from deflow.core.progress import console, progress_bar
from deflow.data.folder import ensure_writable, sole_maker
from deflow.data.names import is_visual
from deflow.data.npz import join_npz
from deflow.data.provenance import (
    check_files,
    file_entry,
    provenance_file,
    read_json,
    validation_file,
)
from deflow.data.recipes import Recipe, recipe_for
from deflow.data.workers import episode_file, play_all

if TYPE_CHECKING:
    from deflow.data.oracles_ant import AntExpert

Settings = dict[str, Any]

MADE_BY = "deflow data generate, by OGBench's recipe and oracles"

_FINISHING = "finishing"


def generate(
    dataset: str,
    *,
    episodes: int | None = None,
    workers: int = 1,
    seed: int = 0,
    data_dir: Path,
    overwrite: bool = False,
    steps: int | None = None,
    expert: AntExpert | None = None,
) -> Path:
    """Collect a dataset by OGBench's official recipe, in its official layout.

    Writes `<dataset>.npz` (`episodes` trajectories), `<dataset>-val.npz` (a tenth as many, at least
    one) and `<dataset>.json` (settings, versions, checksums) into `data_dir`. On one kind of
    machine the .npz files are the same, byte for byte, for any number of workers and after any
    kill: every episode has its own seed. Another kind, which rounds differently, may make others. A
    call with the same settings goes on where a killed one stopped, and does nothing where the files
    are complete. Worker processes are spawned, so a script calls this under
    `if __name__ == "__main__":`. An expert that walked is kept beside the set as
    `<dataset>-expert.npz`, so that the set can be made again without the run that trained it.

    Args:
        dataset: `cube-single-play-v0`, or the name of one of its tasks.
        episodes: training trajectories; the official number by default.
        workers: processes that play episodes at the same time.
        seed: non-negative; another seed gives another set.
        data_dir: the data folder, made where it is missing.
        overwrite: replace files of other settings.
        steps: rows per trajectory, for trials only; the recipe's by default.
        expert: the trained policy that walks in the ant mazes, and in no others.

    Returns:
        The path of the training file.

    Raises:
        DeFlowError: the set is unknown or cannot be made here, the expert is missing or out of
            place, the folder cannot be written, files or a partial folder of other settings are
            there, or a worker failed.
    """
    recipe = recipe_for(dataset)
    if recipe.needs_expert is (expert is None):
        raise DeFlowError(
            f"{recipe.dataset} is walked by a trained expert: train one with `deflow train "
            "online-ant-xy-v0 --agent sac --online-steps 400000`, and give its run with --policy."
            if recipe.needs_expert
            else f"{recipe.dataset} takes no --policy: OGBench's oracles make it."
        )
    episodes = recipe.episodes if episodes is None else episodes
    recipe = recipe if steps is None else dataclasses.replace(recipe, steps=steps)
    for name, value, least in (
        ("episodes", episodes, 1),
        ("workers", workers, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise DeFlowError(f"--{name} is {value}, and must be at least {least}.")
    settings: Settings = {
        "dataset": recipe.dataset,
        "episodes": episodes,
        "validation_episodes": max(1, episodes // 10),
        "steps": recipe.steps,
        "seed": seed,
        "versions": {name: version(name) for name in ("ogbench", "mujoco", "numpy")},
    }
    if expert:
        settings["policy_sha256"] = expert.sha256()
    ensure_writable(data_dir)
    target = data_dir / f"{recipe.dataset}.npz"
    partial = data_dir / f".{recipe.dataset}.partial"
    with sole_maker(data_dir, recipe.dataset):
        if is_visual(recipe.dataset) and (overwrite or not target.exists()):
            from deflow.data.visual import expected_duration

            count = episodes + settings["validation_episodes"]
            console.print(expected_duration(recipe, count, workers))
        if not _begin(settings, target, partial, overwrite):
            console.print(f"{target} is already there, made with these settings; nothing to do.")
            return target
        try:
            with progress_bar() as bar:
                _play(recipe, settings, workers, partial, expert, bar)
                _finish(settings, target, partial, expert, bar)
        except OSError as error:
            raise DeFlowError(
                f"{data_dir} could not be written ({error.strerror}); what is finished is kept, so "
                "the same command goes on from there."
            ) from error
    return target


def _begin(settings: Settings, target: Path, partial: Path, overwrite: bool) -> bool:
    """Check what is there already; make or keep the partial folder. False: all is done."""
    begun, made = read_json(partial / "manifest.json"), read_json(provenance_file(target))
    existing = [file for file in (target, validation_file(target)) if file.exists()]
    # A finished set stays good when a library is updated; an unfinished one must not be mixed.
    same = _without_versions(made.get("settings", {})) == _without_versions(settings)
    if same and len(existing) == 2 and not overwrite:
        check_files(target)
        if begun in ({}, settings):
            shutil.rmtree(partial, ignore_errors=True)
        return False
    if begun not in ({}, settings):
        raise DeFlowError(
            f"{partial} holds an unfinished set of other settings "
            f"({_difference(begun, settings)}); finish it with those or delete that folder."
        )
    if existing and not overwrite and not (partial / _FINISHING).exists():
        how = (
            f"made with other settings ({_difference(made['settings'], settings)})"
            if "settings" in made
            else "and was not made by this command"
        )
        raise DeFlowError(
            f"{existing[0]} is already there, {how}; choose another --data-dir, or replace it with "
            "--overwrite."
        )
    if not begun:
        shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(exist_ok=True)
    write_json(partial / "manifest.json", settings)
    return True


def _play(
    recipe: Recipe,
    settings: Settings,
    workers: int,
    partial: Path,
    expert: AntExpert | None,
    bar: Progress,
) -> None:
    total = settings["episodes"] + settings["validation_episodes"]
    todo = [index for index in range(total) if not _whole(episode_file(partial, index), recipe)]
    if len(todo) < total:
        console.print(f"Going on after {total - len(todo)} finished episodes.")
    title = f"{recipe.dataset}: episodes"
    task = bar.add_task(title, total=total, completed=total - len(todo), note="")
    seed = settings["seed"]
    for _ in play_all(
        recipe, indices=todo, workers=workers, seed=seed, folder=partial, expert=expert
    ):
        bar.advance(task)


def _whole(file: Path, recipe: Recipe) -> bool:
    """Whether an episode's file can be read to its end."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return all(len(arrays[key]) == recipe.steps for key in arrays.files)
    except Exception:  # Absent or damaged: it is played again, with the same result.
        return False


def _finish(
    settings: Settings, target: Path, partial: Path, expert: AntExpert | None, bar: Progress
) -> None:
    """Join the episodes into the two files, give them their names, and tidy up."""
    train, total = settings["episodes"], settings["episodes"] + settings["validation_episodes"]
    parts = [episode_file(partial, index) for index in range(total)]
    task = bar.add_task(f"{settings['dataset']}: joining", total=None, note="")
    provenance: dict[str, Any] = {"made_by": MADE_BY, "settings": settings, "files": {}}
    drafts = {target: parts[:train], validation_file(target): parts[train:]}
    for final, split in drafts.items():
        draft = partial / final.name
        for done, of in join_npz(draft, split):
            bar.update(task, completed=done, total=of, description=f"{final.name}: joining")
        provenance["files"][final.name] = file_entry(draft)
    (partial / _FINISHING).touch()
    provenance_file(target).unlink(missing_ok=True)
    if expert:
        provenance["policy"] = dict(expert.source)
        expert.write(expert_file(target))
    for final in drafts:
        os.replace(partial / final.name, final)
    write_json(provenance_file(target), provenance)
    shutil.rmtree(partial)


def expert_file(target: Path) -> Path:
    """`antmaze-medium-navigate-v0-expert.npz` beside `antmaze-medium-navigate-v0.npz`."""
    return target.with_name(f"{target.stem}-expert.npz")


def _without_versions(settings: Settings) -> Settings:
    return {name: value for name, value in settings.items() if name != "versions"}


def _difference(theirs: Settings, ours: Settings) -> str:
    """`episodes 20 there, 300 here`: the settings that differ, flattened."""

    def flat(settings: Settings) -> Settings:
        return {**_without_versions(settings), **settings.get("versions", {})}

    there, here = flat(theirs), flat(ours)
    return ", ".join(
        f"{name} {there.get(name)} there, {here.get(name)} here"
        for name in {**there, **here}
        if there.get(name) != here.get(name) and name != "validation_episodes"
    )
