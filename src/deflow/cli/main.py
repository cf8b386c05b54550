"""The command line: `deflow COMMAND ...`."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import tyro

from deflow.core.errors import DeFlowError, first_line

COMMANDS = {
    "train": ("deflow.cli.train", "Train", "train an agent on a task"),
    "finetune": ("deflow.cli.finetune", "Finetune", "go on with an offline run in its environment"),
    "resume": ("deflow.cli.resume", "Resume", "go on with a run that was stopped"),
    "evaluate": ("deflow.cli.evaluate", "Evaluate", "play episodes with a trained policy"),
    "report": ("deflow.cli.report", "Report", "a table and curves of one or more runs"),
    "compare": ("deflow.cli.compare", "Compare", "several agents on one task, side by side"),
    "sweep": ("deflow.cli.sweep", "Sweep", "one agent over the values of a setting"),
    "landscape": ("deflow.cli.landscape", "Landscape", "Q around a state, and what is done there"),
    "agents": ("deflow.cli.agents", "Agents", "the systems, and what each of them can be set to"),
    "data generate": ("deflow.cli.data", "Generate", "make a dataset with OGBench's oracles"),
    "data inspect": ("deflow.cli.data", "Inspect", "what a dataset holds"),
    "data export": ("deflow.cli.export", "Export", "write a set or your own data as a Minari set"),
    "data iav": ("deflow.cli.iav", "Iav", "how much actions differ where states are alike"),
    "doctor": ("deflow.cli.doctor", "Doctor", "versions, devices, rendering, data, network"),
    "demo": ("deflow.cli.demo", "Demo", "data, training and evaluation in some ten minutes"),
}

AGAIN = {
    **dict.fromkeys(("train", "finetune", "resume"), "`deflow resume`"),
    **dict.fromkeys(("compare", "sweep", "demo"), "the same command"),
}
"""What goes on with the runs of a command that was broken off."""


def usage() -> str:
    """The commands, a line each."""
    lines = [f"  deflow {name:<15} {text}" for name, (_, _, text) in COMMANDS.items()]
    return "\n".join(
        [
            "DeFlow: offline reinforcement learning with flow policies.",
            "",
            *lines,
            "",
            "`deflow COMMAND --help` shows a command's options and examples.",
        ]
    )


def find(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The command that the arguments name, and the rest of them."""
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in COMMANDS:
            return name, list(arguments[words:])
    family = [name for name in COMMANDS if name.startswith(f"{arguments[0]} ")]
    if family and all(word.startswith("-") for word in arguments[1:]):
        lines = [f"`deflow {name}`: {COMMANDS[name][2]}" for name in family]
        raise DeFlowError(f"Which of them? {'; '.join(lines)}.")
    import difflib

    given = " ".join(arguments[:2])
    near = difflib.get_close_matches(given, COMMANDS, n=1) or difflib.get_close_matches(
        arguments[0], COMMANDS, n=1
    )
    hint = f"; did you mean `deflow {near[0]}`?" if near else "; `deflow --help` lists them."
    raise DeFlowError(f"There is no command `deflow {arguments[0]}`{hint}")


def run(arguments: Sequence[str]) -> int:
    """Carry out one command; returns its exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        from deflow import __version__

        print(f"deflow-rl {__version__}")
        return 0
    name, rest = find(arguments)
    module, cls, _ = COMMANDS[name]
    command: Any = getattr(import_module(module), cls)
    parse = getattr(command, "parse", None)
    about = inspect.cleandoc(command.__doc__)
    parsed = (
        parse(rest)
        if parse
        else tyro.cli(command, args=rest, prog=f"deflow {name}", description=about)
    )
    _expand_home(parsed)
    status: int = parsed.run()
    return status


def _expand_home(command: Any) -> None:
    """Paths that begin with ~ and were not expanded by a shell, as in --out=~/runs."""
    for field in dataclasses.fields(command):
        value = getattr(command, field.name)
        if isinstance(value, Path):
            setattr(command, field.name, Path(os.path.expanduser(value)))


def main() -> None:
    """Entry point: a user's mistake is one sentence on stderr and exit status 2."""
    arguments = sys.argv[1:]
    try:
        sys.exit(run(arguments))
    except DeFlowError as error:
        _refuse(str(error), arguments)
    except BrokenPipeError:  # The reader of a pipe, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        _refuse(_broken_off(error, arguments), arguments)
    except RuntimeError as error:
        _refuse(_on_the_device(error, arguments), arguments)
    except KeyboardInterrupt:
        print("deflow: stopped.", file=sys.stderr)
        sys.exit(130)


def _refuse(sentence: str, arguments: Sequence[str]) -> None:
    """End with it on stderr, and as a document on stdout where one was asked for."""
    if "--json" in arguments:
        print(json.dumps({"error": sentence}))
    print(f"deflow: {sentence}", file=sys.stderr)
    sys.exit(2)


def _on_the_device(error: RuntimeError, arguments: Sequence[str]) -> str:
    """What failed on the device, and how to go on; what is not JAX's is raised again."""
    jax = sys.modules.get("jax")
    if jax is None or not isinstance(error, jax.errors.JaxRuntimeError):
        raise error
    full = "RESOURCE_EXHAUSTED" in str(error)
    remedy = "take fewer members or a smaller batch" if full else "see `deflow doctor`"
    return f"The device failed ({first_line(error)}): {remedy}{_how_to_go_on(arguments)}."


def _broken_off(error: OSError, arguments: Sequence[str]) -> str:
    """What the system refused, and how to go on."""
    what = f"'{error.filename}'" if error.filename else "A file"
    rest = _how_to_go_on(arguments)
    return f"{what} cannot be read or written ({error.strerror or first_line(error)}){rest}."


def _how_to_go_on(arguments: Sequence[str]) -> str:
    again = AGAIN.get(next(iter(arguments), ""))
    return f"; what was saved is kept, and {again} goes on from there" if again else ""
