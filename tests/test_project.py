"""The promises of the project as a whole: its version, its light import, its rooms, no pickle."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import deflow
from deflow import _version

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "src"
PACKAGE = SOURCES / "deflow"

# Each room, and the rooms below it: all that it may import. The face is the modules of no room:
# what `import deflow` offers.
MODELS = {"core", "nn", "behavior", "value", "extraction"}
BELOW: dict[str, set[str]] = {
    "core": set(),
    "nn": {"core"},
    "behavior": {"core", "nn"},
    "value": {"core", "nn"},
    "extraction": {"core", "nn"},
    "agents": MODELS,
    "data": {"core"},
    "envs": {"core"},
    "training": {"core", "data", "envs"},
    "experiments": MODELS | {"agents", "data", "envs", "training"},
    "face": MODELS | {"agents", "data", "envs", "training", "experiments"},
    "cli": MODELS | {"agents", "data", "envs", "training", "experiments", "face"},
}

# Run folders and reports name the version, wherever they are written.
VERSION = {"_version", "__version__"}

# Training knows agents only through their contract: it turns names into agents, and names no agent.
DOORS = {
    ("training", "agents"): "deflow.agents.registry",
    # Evaluation without an environment fits a value of its own.
    ("training", "value"): "deflow.value.fqe",
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, relative ones made absolute, lazy ones included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def trespasses(room: str, source: str, where: str, package: str) -> list[str]:
    """What the source of a module in `room` imports although it does not stand below that room."""
    found = []
    for line, name in imports(ast.parse(source), package):
        first, _, rest = name.partition(".")
        inner = rest.partition(".")[0]
        other = inner if inner in BELOW else "face"
        if first != "deflow" or inner in VERSION or other in {room} | BELOW[room]:
            continue
        door = DOORS.get((room, other))
        if door and (name == door or name.startswith(f"{door}.")):
            continue
        may = ", ".join(sorted(BELOW[room])) or "no other room"
        may += f" (and of `{other}` the module {door})" if door else ""
        found.append(f"{where}:{line}: `{room}` imports `{name}` ({other}), but may import: {may}")
    return list(dict.fromkeys(found))


def uses_of_pickle(source: str, where: str) -> list[str]:
    """Lines that import a pickling module or let numpy read pickles."""
    tree = ast.parse(source)
    found = [
        f"{where}:{line}: imports {name}"
        for line, name in imports(tree, "")
        if name.split(".")[0] in {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    ]
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.keyword)
            and node.arg == "allow_pickle"
            and not (isinstance(node.value, ast.Constant) and node.value.value is False)
        ):
            found.append(f"{where}:{node.value.lineno}: allow_pickle is not False")
    return found


def loaded_after(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter holds after running `code`."""
    report = (
        "import json, sys; print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    )
    script = f"import sys; sys.path.insert(0, {str(SOURCES)!r})\n{code}\n{report}"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_the_version_is_the_installed_one():
    assert deflow.__version__ == _version.__version__ == metadata.version("deflow-rl")


def test_importing_the_package_is_light():
    heavy = {"jax", "equinox", "optax", "orbax", "ogbench", "mujoco", "gymnasium", "matplotlib"}
    assert not loaded_after("import deflow") & heavy


def test_data_and_envs_are_imported_without_jax():
    """Worker processes import both, and must start fast and leave the device alone."""
    names = [
        ".".join(path.relative_to(SOURCES).with_suffix("").parts)
        for room in ("data", "envs")
        for path in sorted((PACKAGE / room).rglob("*.py"))
        if path.name != "__init__.py"
    ]
    device = {"jax", "jaxlib", "equinox", "optax", "orbax"}
    if loaded_after(f"import {', '.join(names)}") & device:
        guilty = [name for name in names if loaded_after(f"import {name}") & device]
        pytest.fail(f"importing {', '.join(guilty)} loads JAX: import it where it is used")


def test_every_room_imports_only_rooms_below_it():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms <= BELOW.keys(), (
        f"{', '.join(sorted(rooms - BELOW.keys()))}: a room without a place; give it one in BELOW"
    )
    found = []
    for path in modules():
        parts = path.relative_to(PACKAGE).parts
        room = parts[0] if len(parts) > 1 else "face"
        package = ".".join(("deflow", *parts[:-1]))
        found += trespasses(room, path.read_text(), str(path.relative_to(ROOT)), package)
    assert not found, "A room imports only rooms below it:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("room", "line", "held"),
    [
        ("agents", "from deflow.data import names", False),
        ("agents", "def f():\n    import deflow.training.loop", False),
        ("agents", "from deflow import envs", False),
        ("agents", "from ..training import loop", False),
        ("value", "from deflow.behavior.flow import VectorField", False),
        ("training", "from deflow.agents.deflow import DeFlow", False),
        ("training", "from deflow.agents.registry import from_settings", True),
        ("data", "from deflow import train", False),
        ("agents", "from deflow.value.td import td_loss", True),
        ("agents", "from . import deflow", True),
        ("training", "from deflow._version import __version__", True),
        ("face", "from deflow.cli import main", False),
        ("cli", "from deflow import train", True),
        ("cli", "import jax\nfrom deflow.experiments import report", True),
    ],
)
def test_the_check_of_rooms_sees_every_kind_of_import(room: str, line: str, held: bool):
    assert (trespasses(room, line, "x.py", f"deflow.{room}") == []) is held


def test_nothing_reads_pickle():
    found = [
        use
        for path in modules()
        for use in uses_of_pickle(path.read_text(), str(path.relative_to(ROOT)))
    ]
    assert not found, "Files may come from strangers, and pickle runs code:\n" + "\n".join(found)
    assert uses_of_pickle("import pickle\nnp.load(p, allow_pickle=x)", "x.py")


def test_every_imported_package_is_declared():
    """A package that only happens to come with another one may leave with it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {canonicalize_name(Requirement(line).name) for lines in lists for line in lines}
    homes = metadata.packages_distributions()
    strangers = {}
    for path in modules():
        for line, name in imports(ast.parse(path.read_text()), "deflow"):
            top = name.partition(".")[0]
            known = {canonicalize_name(home) for home in [top, *homes.get(top, [])]}
            if top not in sys.stdlib_module_names | {"deflow"} and not known & declared:
                strangers[top] = f"{path.relative_to(ROOT)}:{line}: imports {top}"
    assert not strangers, "Name these in pyproject.toml:\n" + "\n".join(strangers.values())


def test_every_requirement_is_pinned_inside_its_range():
    """The pins are installed as they stand, so a missing one would be a missing package."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pinned = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = tables["project"]["optional-dependencies"]
    wanted = [*tables["build-system"]["requires"], *tables["project"]["dependencies"]]
    wanted += [line for extra in extras if extra != "cuda" for line in extras[extra]]
    unmet = [
        f"{line} (pinned: {pinned.get(canonicalize_name(Requirement(line).name), 'no')})"
        for line in wanted
        if pinned.get(canonicalize_name(Requirement(line).name), "0")
        not in Requirement(line).specifier
    ]
    assert not unmet, "constraints.txt does not hold: " + ", ".join(unmet)


def test_an_agent_fits_two_hundred_lines():
    agents = (ROOT / "src" / "deflow" / "agents").rglob("*.py")
    lengths = {path.name: len(path.read_text().splitlines()) for path in agents}
    assert max(lengths.values()) <= 200, lengths
