"""`deflow doctor`: what this machine has, in one screen."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from deflow.cli.result import print_json
from deflow.core.device import NO_DEVICE
from deflow.core.errors import first_line

NEEDED = (
    "jax",
    "jaxlib",
    "equinox",
    "optax",
    "orbax-checkpoint",
    "gymnasium",
    "ogbench",
    "mujoco",
    "numpy",
)
NETWORK_SECONDS = 3.0
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ASKING = "glibc.malloc.hugetlb=1"
"""A word of GLIBC_TUNABLES, which glibc knows from 2.35 on."""


@dataclass(frozen=True)
class Finding:
    """One line of the screen. A hint says what would help, where something is amiss."""

    group: str
    name: str
    value: str
    good: bool = True
    hint: str = ""


@dataclass
class Doctor:
    """Show versions, devices, rendering, the data folder and the network, in one screen.

    What fails comes with a hint. The exit status is 1 where a needed package is missing, else 0:
    training needs neither rendering nor the network.

    Examples:
      deflow doctor
      deflow doctor --json
      deflow doctor --data-dir ~/sets
    """

    data_dir: Path | None = None
    """The data folder; by default DEFLOW_DATA_DIR, or the user's cache."""
    json: bool = False
    """Print one JSON document instead of text."""

    def run(self) -> int:
        """Look at everything and print it."""
        from deflow.core.progress import progress_bar

        checks: dict[str, Callable[[], list[Finding]]] = {
            "versions": versions,
            "devices": devices,
            "rendering": rendering,
            "data": lambda: data(self.data_dir),
            "network": network,
        }
        findings: list[Finding] = []
        with progress_bar(transient=True) as progress:
            task = progress.add_task("looking", total=len(checks), note="")
            for name, check in checks.items():
                progress.update(task, note=name)
                findings += _looked(name, check)
                progress.advance(task)
        missing = [f.name for f in findings if f.group == "versions" and not f.good]
        if self.json:
            document = {"missing": missing, "findings": [asdict(f) for f in findings]}
            print_json(document)
        else:
            _print(findings)
        return 1 if missing else 0


def _looked(group: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except ImportError as error:
        return [Finding(group, "look", f"not possible: {error}", False, "see the versions above")]
    except OSError as error:
        hint = "mend that, or choose another folder"
        return [Finding(group, "look", f"not possible: {error}", False, hint)]


def versions() -> list[Finding]:
    """Python, this library, and the packages that it needs."""
    from deflow._version import __version__

    found = [
        Finding("versions", "python", platform.python_version()),
        Finding("versions", "deflow", __version__),
    ]
    for package in NEEDED:
        try:
            found.append(Finding("versions", package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            hint = f"pip install {package}, or install deflow-rl again"
            found.append(Finding("versions", package, "missing", False, hint))
    return found


def devices() -> list[Finding]:
    """What JAX computes on, and the cores that this process may use."""
    try:
        import jax

        kinds = [f"{d.platform}:{d.id} ({d.device_kind})" for d in jax.devices()]
        on_cpu = jax.default_backend() == "cpu" and "JAX_PLATFORMS" not in os.environ
        idle_gpu = on_cpu and shutil.which("nvidia-smi") is not None
        hint = "an NVIDIA GPU is unused: pip install '.[cuda]' in a clone" if idle_gpu else ""
        computing = Finding("devices", "computing", ", ".join(kinds), not idle_gpu, hint)
    except NO_DEVICE as error:
        reason = first_line(error) if str(error) else "no such device"
        hint = "install JAX for this machine, or set JAX_PLATFORMS=cpu"
        computing = Finding("devices", "computing", f"none: {reason}", False, hint)
    affinity = getattr(os, "sched_getaffinity", None)
    usable = len(affinity(0)) if affinity else os.cpu_count() or 1
    return [
        computing,
        Finding("devices", "cores", f"{os.cpu_count()}, of which this process may use {usable}"),
        Finding("devices", "threads", _thread_settings()),
        *_huge_pages(),
    ]


def rendering() -> list[Finding]:
    """Whether MuJoCo can draw, and whether films can be written as .mp4."""
    from importlib.util import find_spec

    from deflow.envs.render import HINT, rendering_backend

    backend = rendering_backend()
    mp4 = find_spec("imageio_ffmpeg") is not None
    return [
        Finding("rendering", "backend", backend or "none", bool(backend), "" if backend else HINT),
        Finding(
            "rendering",
            "videos",
            ".gif and .mp4" if mp4 else ".gif",
            hint="" if mp4 else "for .mp4, in a clone of DeFlow: pip install '.[video]'",
        ),
    ]


def data(option: Path | None) -> list[Finding]:
    """The data folder, whether it can be written, and the sets in it."""
    from deflow.data.d4rl import TASKS
    from deflow.data.folder import data_folder

    folder = data_folder(option)
    sets = sorted(
        [
            path.stem
            for path in folder.glob("*.npz")
            if path.with_name(f"{path.stem}-val.npz").is_file()
        ]
        + [name for name in TASKS if (folder / f"{name}.hdf5").is_file()]
    )
    writable = _can_be_written(folder)
    hint = "" if writable else "choose another with --data-dir or DEFLOW_DATA_DIR"
    return [
        Finding("data", "folder", str(folder)),
        Finding("data", "writable", "yes" if writable else "no", writable, hint),
        Finding(
            "data",
            "sets",
            ", ".join(sets) or "none",
            hint="" if sets else "make one: deflow data generate cube-single-play-v0",
        ),
    ]


def network() -> list[Finding]:
    """Whether OGBench's files could be fetched; asked in a thread, since a look-up may hang."""
    from deflow.data.download import OFFICIAL

    answers: list[bool] = []

    def ask() -> None:
        request = urllib.request.Request(OFFICIAL, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=NETWORK_SECONDS):
                answers.append(True)
        except urllib.error.HTTPError:
            answers.append(True)
        except (OSError, ValueError):
            answers.append(False)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(NETWORK_SECONDS)
    reached = bool(answers and answers[0])
    hint = "" if reached else "sets cannot be fetched here, but made: deflow data generate"
    value = f"{OFFICIAL} {'answers' if reached else 'does not answer'}"
    return [Finding("network", "OGBench", value, reached, hint)]


def _can_be_written(folder: Path) -> bool:
    """Asked without making the folder: its nearest parent that exists decides."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return existing.is_dir() and os.access(existing, os.W_OK)


def _thread_settings() -> str:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "XLA_FLAGS")
    given = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    return ", ".join(given) or "as the libraries choose"


def _huge_pages() -> list[Finding]:
    """Whether malloc may take huge pages, where Linux gives them only to those who ask."""
    if not (HUGE_PAGES.is_file() and "[madvise]" in HUGE_PAGES.read_text()):
        return []
    asked = ASKING in os.environ.get("GLIBC_TUNABLES", "")
    hint = f"on CPUs, some runs step online faster with GLIBC_TUNABLES={ASKING} (glibc 2.35)"
    value = "asked for" if asked else "not asked for"
    return [Finding("devices", "huge pages", value, hint="" if asked else hint)]


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False)
    for _ in range(3):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    group = ""
    for finding in findings:
        begins = finding.group != group
        if group and begins:
            table.add_section()
        mark = "[green]✓[/]" if finding.good else "[yellow]![/]"
        text = escape(finding.value)
        if finding.hint:
            text += f"\n[dim]{escape(finding.hint)}[/]"
        table.add_row(finding.group if begins else "", mark, finding.name, text)
        group = finding.group
    Console().print(table)
