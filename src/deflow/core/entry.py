"""What a user names as `module:name`, or as an environment's id."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from typing import Any

from deflow.core.errors import DeFlowError, first_line

HOMES = ("ogbench", "gymnasium_robotics")
"""Packages that register their environments when they are imported."""


def registered(env_id: str) -> Any:
    """What Gymnasium knows of an id, also where its package was not imported yet; None where it
    knows nothing."""
    import gymnasium

    for home in HOMES:
        if env_id in gymnasium.registry:
            break
        # On import gymnasium-robotics tells of faults in its rewards.
        with contextlib.suppress(ImportError), contextlib.redirect_stderr(io.StringIO()):
            importlib.import_module(home)
    return gymnasium.registry.get(env_id)


def imported(entry: str, what: str, kind: str = "name") -> Any:
    """The object that `module:name` (or `module:Class.name`) leads to.

    It is looked for among the installed packages and in the current folder, which a command does
    not search by itself. Raises `DeFlowError`, saying `what` was named, where there is none.
    """
    module, _, path = entry.partition(":")
    if not module or not path:
        raise DeFlowError(f"'{entry}' does not name {what}; write it as module:{kind}.")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError, TypeError) as error:
        raise DeFlowError(
            f"'{entry}', which should be {what}, was not found ({first_line(error)}); it is looked "
            "for among the installed packages and in the current folder."
        ) from error
    except Exception as error:
        fault = type(error).__name__
        raise DeFlowError(
            f"'{entry}', which should be {what}, cannot be imported: {fault}: {first_line(error)}."
        ) from error
    return found
