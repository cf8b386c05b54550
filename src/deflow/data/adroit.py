"""Making Adroit's sets on this machine: the original experts rolled, human demonstrations replayed.

Environments come as a maker, `deflow.envs.d4rl.make_d4rl`, since this room makes none of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deflow.core.errors import DeFlowError
from deflow.core.files import sha256, sync, write_json, written_whole
from deflow.core.progress import console, progress_bar
from deflow.data import checks
from deflow.data.folder import ensure_writable, sole_maker
from deflow.data.provenance import check_files, file_entry, provenance_file, read_json
from deflow.data.readers.dapg import Expert, read_door_demonstrations
from deflow.data.readers.guards import require_package
from deflow.data.recipes import Rows

MakeEnv = Callable[[str], Any]
Array = NDArray[Any]
Settings = dict[str, Any]

EXPERTS = ("pen-expert-v1", "door-expert-v1", "hammer-expert-v1", "relocate-expert-v1")
HUMAN = "door-human-v1"
EPISODES = 5000
"""Trajectories of D4RL's expert sets."""


def play_expert(env: Any, expert: Expert, seed: int, episode: int) -> dict[str, Array]:
    """One episode as D4RL collected it: actions sampled, then clipped to the box.

    What happens follows from (seed, episode) alone. Returns the columns of the official schema, a
    row per step.
    """
    world, noise = np.random.SeedSequence(seed, spawn_key=(episode,)).spawn(2)
    draw = np.random.default_rng(noise)
    observation, _ = env.reset(seed=int(world.generate_state(1)[0]))
    rows = Rows()
    ended = truncated = False
    while not (ended or truncated):
        mean = expert.mean(observation)
        action = np.clip(mean + np.exp(expert.log_std) * draw.standard_normal(len(mean)), -1, 1)
        before = {"observations": observation, "actions": action, **_infos(env)}
        observation, reward, ended, truncated, _ = env.step(action)
        rows.append(
            **before,
            **{"infos/action_mean": mean, "infos/action_log_std": expert.log_std},
            rewards=reward,
            terminals=ended and not truncated,
            timeouts=truncated,
        )
    return _columns(rows)


def roll_expert(
    dataset: str,
    policy_file: Path,
    data_dir: Path,
    episodes: int = EPISODES,
    seed: int = 0,
    *,
    make_env: MakeEnv,
) -> Path:
    """Collect `{pen,door,hammer,relocate}-expert-v1` with the original expert, as D4RL did.

    Writes `<dataset>.hdf5` in the official schema and `<dataset>.json` (settings, versions,
    checksums). A call with the settings of the files that are there does nothing.

    Args:
        dataset: one of `EXPERTS`.
        policy_file: the expert's .npz file; see `Expert.read`.
        data_dir: the data folder, made where it is missing.
        episodes: trajectories; D4RL's number by default.
        seed: non-negative; another seed gives another set.
        make_env: makes the environment of a D4RL name, `deflow.envs.d4rl.make_d4rl`.

    Raises:
        DeFlowError: an unknown set, a policy that does not fit it, a folder that cannot be written,
            files of other settings in it, or a simulation that left finite numbers.
    """
    if dataset not in EXPERTS:
        raise DeFlowError(
            f"{dataset!r} cannot be rolled by an expert; those that can are {', '.join(EXPERTS)}."
        )
    for name, value, least in (("episodes", episodes, 1), ("seed", seed, 0)):
        if value < least:
            raise DeFlowError(f"--{name} is {value}, and must be at least {least}.")
    expert = Expert.read(policy_file)
    settings: Settings = {
        "dataset": dataset,
        "episodes": episodes,
        "seed": seed,
        "policy_sha256": sha256(policy_file),
    }
    env = make_env(dataset)
    try:
        wanted = (env.observation_space.shape[0], env.action_space.shape[0])
        if expert.widths != wanted:
            raise DeFlowError(
                f"{policy_file} is an expert of {expert.widths[0]} observations and "
                f"{expert.widths[1]} actions, and {dataset} has {wanted[0]} and {wanted[1]}; give "
                "that task's own."
            )
        played = (play_expert(env, expert, seed, episode) for episode in range(episodes))
        return _write(data_dir, settings, "roll_expert, with DAPG's expert", played, episodes)
    finally:
        env.close()


def replay_door_human(demos: Path, data_dir: Path, *, make_env: MakeEnv) -> Path:
    """Make `door-human-v1` from DAPG's demonstrations, as D4RL did.

    Each demonstration's clipped actions are replayed from its initial state, and what is seen is
    stored: no terminals, a timeout on each last row. Files are written as by `roll_expert`.

    Args:
        demos: the demonstrations' .npz file; see `read_door_demonstrations`.
        data_dir: the data folder, made where it is missing.
        make_env: as for `roll_expert`.

    Raises:
        DeFlowError: see `roll_expert`.
    """
    lengths, actions, states = read_door_demonstrations(demos)
    count = len(lengths)
    settings: Settings = {"dataset": HUMAN, "episodes": count, "demos_sha256": sha256(demos)}
    env = make_env(HUMAN)
    starts = np.cumsum(lengths) - lengths

    def played() -> Iterator[dict[str, Array]]:
        for index, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            state = {key: np.asarray(column[index], np.float64) for key, column in states.items()}
            yield _replay(env, state, actions[start : start + length])

    try:
        return _write(data_dir, settings, "replay_door_human, from demonstrations", played(), count)
    finally:
        env.close()


def _replay(env: Any, state: dict[str, Array], actions: Array) -> dict[str, Array]:
    observation, _ = env.reset(seed=0, options={"initial_state_dict": state})
    rows = Rows()
    for index, action in enumerate(np.clip(actions, -1, 1)):
        before = {"observations": observation, "actions": action, **_infos(env)}
        # Demonstrations may outlast the time limit, which D4RL's replay does not heed.
        observation, reward, *_ = env.step(action)
        final = index == len(actions) - 1
        rows.append(**before, rewards=reward, terminals=False, timeouts=final)
    return _columns(rows)


def _infos(env: Any) -> dict[str, Array]:
    state = env.unwrapped.get_env_state()
    return {f"infos/{key}": np.array(value) for key, value in state.items()}


def _columns(rows: Rows) -> dict[str, Array]:
    columns = rows.stack()
    return {**columns, "timeouts": columns["timeouts"].astype(np.bool_)}


def _write(
    data_dir: Path,
    settings: Settings,
    made_by: str,
    episodes: Iterator[dict[str, Array]],
    count: int,
) -> Path:
    """Play the episodes and write them, all or nothing, unless the same file is there."""
    target = data_dir / f"{settings['dataset']}.hdf5"
    require_package("h5py", "d4rl", target)
    ensure_writable(data_dir)
    with sole_maker(data_dir, settings["dataset"]):
        if not _is_made(target, settings):
            _play(target, settings, made_by, episodes, count)
    return target


def _is_made(target: Path, settings: Settings) -> bool:
    """Whether the file is there; `DeFlowError` where it was made otherwise."""
    if not target.exists():
        return False
    made = read_json(provenance_file(target)).get("settings", {})
    if {key: made.get(key) for key in settings} != settings:
        raise DeFlowError(
            f"{target} is already there, made with other settings or not by this command; delete "
            "it or choose another --data-dir."
        )
    check_files(target)
    console.print(f"{target} is already there, made with these settings; nothing to do.")
    return True


def _play(
    target: Path,
    settings: Settings,
    made_by: str,
    episodes: Iterator[dict[str, Array]],
    count: int,
) -> None:
    parts: list[dict[str, Array]] = []
    with progress_bar() as bar:
        task = bar.add_task(f"{settings['dataset']}: episodes", total=count, note="")
        for part in episodes:
            for key, column in part.items():
                checks.finite(column, f"{settings['dataset']}, episode {len(parts)}: {key}")
            parts.append(part)
            mean = np.mean([part["rewards"].sum() for part in parts[-100:]])
            bar.update(task, advance=1, note=f"return {mean:,.0f}")
    try:
        with written_whole(target) as temporary:
            _save(temporary, parts)
            versions = {name: version(name) for name in ("gymnasium-robotics", "mujoco", "numpy")}
            provenance = {
                "made_by": made_by,
                "settings": {**settings, "versions": versions},
                "files": {target.name: file_entry(temporary)},
            }
            # Said first: a file of which nothing is known would be refused for ever.
            write_json(provenance_file(target), provenance)
    except OSError as error:
        raise DeFlowError(
            f"{target.parent} could not be written ({error.strerror or error})."
        ) from error


def _save(path: Path, parts: list[dict[str, Array]]) -> None:
    import h5py

    # Without times of creation the bytes follow from the numbers alone.
    with h5py.File(path, "w", track_order=False) as file:
        for key in parts[0]:
            column = np.concatenate([part[key] for part in parts])
            file.create_dataset(key, data=column, compression="gzip", track_times=False)
    sync(path)
