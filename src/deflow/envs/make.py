"""Which environment is meant, how it is made, and whether this library can act in it."""

from __future__ import annotations

import contextlib
import inspect
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deflow.core.entry import imported, registered
from deflow.core.errors import DeFlowError, first_line, near

if TYPE_CHECKING:
    import gymnasium

FRAME = {"width": 320, "height": 240}
"""The size in pixels of the frames that OGBench's environments draw for us: the arm in full reach,
and the widest maze, fit in."""

WALKING_ANT = "online-ant-xy-v0"
"""OGBench's ant, rewarded for going where it is told: what its ant-maze expert is trained on."""


@dataclass(frozen=True)
class EnvSpec:
    """A recipe for an environment; it can be sent to another process.

    Exactly one of `env_id` (an OGBench or Gymnasium id) and `entry` (`module:make`, a callable that
    returns a `gymnasium.Env`) is set. `kwargs` go to the maker. With `flatten`, observations that
    are dictionaries or tuples become vectors; with `box`, the lows and highs of its actions, one
    for each dimension or one for all, it is acted in by numbers from -1 to 1.
    """

    env_id: str = ""
    entry: str = ""
    kwargs: tuple[tuple[str, Any], ...] = ()
    flatten: bool = False
    box: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __post_init__(self) -> None:
        if bool(self.env_id) == bool(self.entry):
            raise DeFlowError("An environment needs either an id or a module:make entry; give one.")

    @classmethod
    def parse(cls, text: str) -> EnvSpec:
        """Read what `--env` takes: `module:make`, or an id, which holds no colon."""
        if not isinstance(text, str):
            raise DeFlowError(
                f"An environment is named, as 'module:make' or by its id, not given as {text!r}: "
                "worker processes make it too."
            )
        return cls(entry=text) if ":" in text else cls(env_id=text)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> EnvSpec:
        """Read back what `dataclasses.asdict` and JSON made of one."""
        box, kwargs = document["box"], document["kwargs"]
        pairs = {
            "kwargs": tuple((name, value) for name, value in kwargs),
            "box": (tuple(box[0]), tuple(box[1])) if box else None,
        }
        return cls(**{**document, **pairs})

    @property
    def name(self) -> str:
        """The id or the entry, as the user gave it."""
        return self.env_id or self.entry


def make_env(spec: EnvSpec, render: bool = False) -> gymnasium.Env[Any, Any]:
    """Make the environment; with `render`, one whose `render()` returns RGB arrays.

    Raises `DeFlowError` where the id or the entry does not lead to a `gymnasium.Env`.
    """
    with quiet():
        env = _from_entry(spec, render) if spec.entry else _from_id(spec, render)
        if spec.flatten:
            from gymnasium.wrappers import FlattenObservation

            env = FlattenObservation(env)
        return _in_unit_box(env, *spec.box) if spec.box else env


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings that concern nobody: a viewer without a display, boxes in float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _from_id(spec: EnvSpec, render: bool) -> gymnasium.Env[Any, Any]:
    import gymnasium
    import ogbench  # noqa: F401  (registers its environments)

    _register_walkers()
    registered(spec.env_id)  # So that its package is imported, in a worker too.
    try:
        found = gymnasium.spec(spec.env_id)
    except (gymnasium.error.Error, ImportError) as error:
        hint = near(spec.env_id, gymnasium.registry, "give an OGBench or Gymnasium id.")
        raise DeFlowError(
            f"There is no environment called '{spec.env_id}' ({first_line(error)}); {hint}"
        ) from error
    kwargs = dict(spec.kwargs)
    if render:
        kwargs["render_mode"] = "rgb_array"
        if _is_ogbench(found) and not shows_frames(spec):
            kwargs = {**FRAME, **kwargs}
    # The mazes write their model to a temporary file that nobody removes.
    with tempfile.TemporaryDirectory() as folder:
        before, tempfile.tempdir = tempfile.tempdir, folder
        try:
            return gymnasium.make(found, disable_env_checker=True, **kwargs)
        except Exception as error:
            raise _not_made(spec, error) from error
        finally:
            tempfile.tempdir = before


def _not_made(spec: EnvSpec, error: Exception) -> DeFlowError:
    if isinstance(error, DeFlowError):
        return error
    return DeFlowError(
        f"The environment '{spec.name}' could not be made ({type(error).__name__}: "
        f"{first_line(error)}); check its arguments and that its package is installed."
    )


def _register_walkers() -> None:
    """Register OGBench's online walkers, which `import ogbench` leaves out, and their `-xy-` forms.

    Those are no ids of OGBench's: the script that trains its experts reads `-xy-` as a wrapper.
    """
    import gymnasium
    import ogbench.online_locomotion  # noqa: F401

    for body in ("ant", "humanoid"):
        env_id = f"online-{body}-xy-v0"
        if env_id not in gymnasium.registry:
            gymnasium.register(
                env_id,
                entry_point="deflow.envs.make:walk_by_direction",
                max_episode_steps=1000,
                kwargs={"body": body},
            )


def walk_by_direction(body: str, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """OGBench's `ant` or `humanoid` rewarded for going where a unit vector (the last two numbers it
    sees) points; the vector is drawn anew every 100 steps, for the humanoid every 200.

    It is drawn from numpy's global state, which `SeededEnv` governs. Source: OGBench's
    data_gen_scripts/online_env_utils.py.
    """
    from ogbench.online_locomotion import ant, humanoid, wrappers

    walker: gymnasium.Env[Any, Any]
    if body == "ant":
        walker = wrappers.GymXYWrapper(ant.AntEnv(**kwargs), resample_interval=100)
    else:
        world = humanoid.HumanoidEnv(**kwargs)
        walker = wrappers.DMCHumanoidXYWrapper(world, resample_interval=200)
    return walker


def _from_entry(spec: EnvSpec, render: bool) -> gymnasium.Env[Any, Any]:
    import gymnasium

    maker = imported(spec.entry, "an environment", "make")
    if not callable(maker):
        raise DeFlowError(
            f"The environment entry '{spec.entry}' is a {type(maker).__name__}, not a callable; "
            "point it at a function or class that returns a gymnasium.Env."
        )
    kwargs = dict(spec.kwargs)
    if render and _accepts(maker, "render_mode"):
        kwargs["render_mode"] = "rgb_array"
    try:
        env = maker(**kwargs)
    except Exception as error:
        raise _not_made(spec, error) from error
    if not isinstance(env, gymnasium.Env):
        raise DeFlowError(
            f"The environment entry '{spec.entry}' returned a {type(env).__name__}, "
            "not a gymnasium.Env; let it return one."
        )
    return env


def _in_unit_box(
    env: gymnasium.Env[Any, Any], low: tuple[float, ...], high: tuple[float, ...]
) -> gymnasium.Env[Any, Any]:
    """The environment behind actions in [-1, 1], which stand for the given box: that of the data,
    perhaps a part of its own."""
    import numpy as np
    from gymnasium import spaces
    from gymnasium.wrappers import TransformAction

    own = env.action_space
    if not isinstance(own, spaces.Box) or len(low) not in (1, *own.shape):
        raise DeFlowError(
            f"The environment's actions are {own}, and the data's have bounds for {len(low)} "
            "dimensions: use the environment that belongs to the data."
        )
    bottom, top = np.asarray(low, own.dtype), np.asarray(high, own.dtype)
    unit = spaces.Box(-1.0, 1.0, own.shape, np.float32)
    outward = lambda a: np.clip(bottom + (a + 1) * 0.5 * (top - bottom), own.low, own.high)  # noqa: E731
    return TransformAction(env, outward, unit)


def env_shapes(env: gymnasium.Env[Any, Any]) -> tuple[tuple[int, ...], int]:
    """An observation's shape, (obs,) or (height, width, channels), and the width of an action.

    Raises `DeFlowError` with the reason for an environment that we cannot act in.
    """
    import numpy as np
    from gymnasium import spaces

    with quiet():
        observation, action = env.observation_space, env.action_space
    name = env.spec.id if env.spec else type(env.unwrapped).__name__

    def refuse(reason: str) -> DeFlowError:
        return DeFlowError(f"The environment '{name}' cannot be used: {reason}")

    if isinstance(observation, spaces.Dict) and "desired_goal" in observation.spaces:
        raise refuse("it is goal-conditioned (desired_goal); give a task with one fixed goal.")
    if env.spec and _is_ogbench(env.spec) and "reward_task_id" not in env.spec.kwargs:
        raise refuse("it is goal-conditioned; give its single-task form, named ...-singletask-....")
    if isinstance(observation, spaces.Dict | spaces.Tuple):
        raise refuse(
            "its observations are a dictionary or tuple; wrap it with "
            "gymnasium.wrappers.FlattenObservation(env)."
        )
    if not isinstance(observation, spaces.Box):
        raise refuse(f"its observations are {observation}, not a vector of numbers.")
    if (len(observation.shape) == 3) != (observation.dtype == np.uint8):
        raise refuse(
            f"its observations have shape {observation.shape} and dtype {observation.dtype}, and "
            "frames must be bytes (uint8) of the shape [height, width, channels]."
        )
    if len(observation.shape) not in (1, 3):
        raise refuse(
            f"its observations have shape {observation.shape}; wrap it with "
            "gymnasium.wrappers.FlattenObservation(env)."
        )
    if not isinstance(action, spaces.Box):
        raise refuse(f"its actions are discrete ({action}); only continuous actions are supported.")
    if len(action.shape) != 1:
        raise refuse(f"its actions have shape {action.shape}; they must be one vector.")
    if not action.is_bounded():
        raise refuse("its actions have no bounds; give a bounded box of actions.")
    if not (np.all(action.low == -1) and np.all(action.high == 1)):
        raise refuse(
            "its actions are not bounded by -1 and 1; where your data hold them as it takes them, "
            f"give --action-bounds {_sides(action)}; where they were logged from -1 to 1, or there "
            "are none, wrap it with gymnasium.wrappers.RescaleAction(env, -1, 1)."
        )
    return tuple(observation.shape), action.shape[0]


def _sides(box: gymnasium.spaces.Box) -> str:
    """A box's lows, then its highs, as `--action-bounds` takes them; one of each if all agree."""
    import numpy as np

    alike = (box.low == box.low[0]).all() and (box.high == box.high[0]).all()
    sides = [side[:1] if alike else side for side in (box.low, box.high)]
    return " ".join(np.format_float_positional(each, trim="-") for each in np.concatenate(sides))


def shows_frames(spec: EnvSpec) -> bool:
    """Whether this is an environment of OGBench that draws what it shows; nothing is made."""
    import gymnasium
    import ogbench  # noqa: F401  (registers its environments)

    known = gymnasium.registry.get(spec.env_id)
    return known is not None and known.kwargs.get("ob_type") == "pixels"


def _is_ogbench(known: Any) -> bool:
    """Whether a Gymnasium spec is one of OGBench's offline tasks (mazes, manipulation)."""
    entry = known.entry_point
    return isinstance(entry, str) and entry.startswith(("ogbench.manipspace", "ogbench.locomaze"))


def _accepts(maker: Callable[..., Any], keyword: str) -> bool:
    try:
        parameters = inspect.signature(maker).parameters
    except (TypeError, ValueError):
        return False
    return keyword in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
