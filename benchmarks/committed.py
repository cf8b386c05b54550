"""What a script commits of a run."""

from __future__ import annotations

from typing import Any


def committed(document: dict[str, Any], command: str) -> dict[str, Any]:
    """The library's document of a run without the folders of this machine, made by the script's own
    command: the words that a run was begun by name such folders too."""
    kept = {name: value for name, value in document.items() if name not in ("run_dir", "figure")}
    return {**kept, "provenance": {**document["provenance"], "command": command}}
