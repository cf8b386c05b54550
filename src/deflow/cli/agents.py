"""`deflow agents`: the systems, and the settings of each."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from deflow.cli.result import print_json

if TYPE_CHECKING:
    from deflow.core.agent import Agent


@dataclass
class Agents:
    """The systems and what each is made of; with a name, the settings of that one.

    A setting of which a family of runs may hold several values is marked as one to sweep, with
    `deflow train --over name=value,value`.

    Examples:
      deflow agents
      deflow agents deflow
      deflow agents iql --json
      deflow agents my_module:MyAgent
    """

    name: Positional[str | None] = None
    """One of the systems, or your own as module:Class."""
    json: bool = False
    """Print one JSON document instead of text."""

    def run(self) -> int:
        from deflow.agents.registry import AGENTS, OWN, agent_class, systems

        about = systems()
        if self.name is None:
            found: Any = [{"name": name, **about[name]} for name in AGENTS]
            tables = [_systems_table(found), _derived_table(found)]
        else:
            cls = agent_class(self.name)
            made_of = about.get(self.name, OWN)
            found = {"name": self.name, **made_of, "schedules": list(cls.schedules)}
            found["settings"] = settings_of_class(cls)
            tables = [_settings_table(found)]
        if self.json:
            print_json(found)
        else:
            Console().print(*tables, sep="\n")
        return 0


def settings_of_class(cls: type[Agent]) -> list[dict[str, Any]]:
    """The settings of a system, in the order of its fields: name, meaning, default, range, sweep.

    A meaning is the string under the field, of the nearest class that has one.
    """
    meanings: dict[str, str] = {}
    for ancestor in reversed(cls.__mro__):
        meanings |= _strings_under_fields(ancestor)
    hints = typing.get_type_hints(cls)
    return [
        {
            "name": field.name,
            "meaning": meanings.get(field.name, ""),
            "default": field.default,
            "range": _range(hints[field.name], field.metadata.get("bounds", {})),
            "sweep": isinstance(field.default, float),
        }
        for field in dataclasses.fields(cls)
    ]


def _strings_under_fields(cls: type) -> dict[str, str]:
    """Every field that a class states itself, with the string below it, on one line."""
    if "__annotations__" not in vars(cls):
        return {}
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(after.value.value).split())
    return found


def _range(hint: Any, bounds: dict[str, float]) -> str:
    """What a setting may be, in words."""
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(str, typing.get_args(hint)))
    if hint is bool:
        return "True or False"
    return " and ".join(f"{word.replace('_', ' ')} {bound:g}" for word, bound in bounds.items())


def _systems_table(systems: list[dict[str, str]]) -> Table:
    # Few lines, so that all of it fits a terminal of 80 columns.
    title = "What the data do, how good an action is, which action is taken"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    headings = ("name", "behavior", "value", "extraction", "paper")
    for heading in headings:
        # No word is broken: the longest is `backpropagation,`.
        width = 16 if heading == "extraction" else None
        table.add_column(heading, overflow="fold", no_wrap=heading == "name", min_width=width)
    for system in systems:
        table.add_row(*(escape(system[heading]) for heading in headings))
    return table


def _derived_table(systems: list[dict[str, str]]) -> Table:
    title = "What of them is derived, because no code or equations are public"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("derived", overflow="fold")
    for system in systems:
        if system["derived"]:
            table.add_row(escape(system["name"]), escape(system["derived"]))
    return table


def _settings_table(system: dict[str, Any]) -> Table:
    parts = ", ".join(f"{part}: {system[part]}" for part in ("behavior", "value", "extraction"))
    paper = f" ({system['paper']})" if system["paper"] else ""
    notes = [f"{system['name']}{paper}", parts]
    notes += [f"schedules: {', '.join(system['schedules'])}"]
    notes += [f"derived: {system['derived']}"] if system["derived"] else []
    table = Table(title=escape("\n".join(notes)))
    for heading in ("setting", "meaning", "default", "range", "sweep"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "setting")
    for setting in system["settings"]:
        value = setting["default"]
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        sweep = "yes" if setting["sweep"] else ""
        cells = (setting["name"], setting["meaning"], shown, setting["range"], sweep)
        table.add_row(*map(escape, cells))
    return table
