"""Fetching official files, OGBench's and D4RL's: resumed, atomic, a checksum kept."""

from __future__ import annotations

import os
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from rich.progress import Progress, TaskID

from deflow.core.errors import DeFlowError
from deflow.core.files import locked, write_json
from deflow.core.progress import console, progress_bar
from deflow.data.folder import ensure_writable
from deflow.data.provenance import (
    file_entry,
    provenance_file,
    read_json,
    validation_file,
)

OFFICIAL = "https://rail.eecs.berkeley.edu/datasets/ogbench"
_TIMEOUT = 5.0
_CHUNK = 1 << 18
_BROKEN = (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError)


class DownloadError(Exception):
    """Why a download did not succeed, in a few words."""


def download_set(dataset: str, folder: Path, *, url: str = OFFICIAL) -> Path:
    """Fetch `<dataset>.npz` and `<dataset>-val.npz` into `folder`; returns the training file.

    What was fetched before a kill or a lost connection is kept in `.part` files and continued. The
    sizes and SHA-256 of both files are kept in `<dataset>.json`.

    Raises:
        DownloadError: no network, no such file, or the connection broke.
        DeFlowError: the folder cannot be written, or holds a part of a set that was generated.
    """
    ensure_writable(folder)
    target = folder / f"{dataset}.npz"
    files = [target, validation_file(target)]
    if "settings" in read_json(provenance_file(target)) and any(map(Path.exists, files)):
        raise DeFlowError(
            f"Of {dataset} in {folder}, which was generated, a file is missing, and the official "
            f"one is of another set: generate it again (`deflow data generate {dataset} "
            "--overwrite`), or choose another --data-dir."
        )
    try:
        with progress_bar(transient=True) as bar:
            for path in files:
                if not path.exists():
                    fetch(f"{url}/{path.name}", path, bar)
        entries = {path.name: file_entry(path) for path in files}
        write_json(provenance_file(target), {"made_by": f"download from {url}", "files": entries})
    except OSError as error:
        raise DeFlowError(f"{folder} could not be written ({error.strerror or error}).") from error
    return target


def fetch(url: str, path: Path, bar: Progress) -> None:
    """Fetch one file, continuing after each broken connection as long as there is progress; where
    another process fetches it already, wait for that."""
    part = path.with_name(f"{path.name}.part")

    def busy() -> None:
        console.print(f"Another process is fetching {path.name} just now; waiting for it.")

    with locked(part, busy):
        if path.exists():  # Another process has fetched it in the meantime.
            part.unlink(missing_ok=True)
            return
        try:
            _fetch(url, path, part, bar)
        finally:
            if part.exists() and not _size(part):
                part.unlink()


def _fetch(url: str, path: Path, part: Path, bar: Progress) -> None:
    task = bar.add_task(f"{path.name}, KiB", total=None, note="")
    while True:
        before = _size(part)
        try:
            _continue(url, part, bar, task)
            break
        except urllib.error.HTTPError as error:
            raise DownloadError(f"{url} answered {error.code} {error.reason}") from error
        except _BROKEN as error:
            if _size(part) <= before:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
                raise DownloadError(f"{url} could not be fetched ({reason})") from error
            console.print(f"The connection broke; going on with {path.name}.")
    os.replace(part, path)
    _validator(part).unlink(missing_ok=True)


def _continue(url: str, part: Path, bar: Progress, task: TaskID) -> None:
    """Fetch what is still missing of one file."""
    have, validator = _size(part), read_json(_validator(part)).get("validator")
    headers = {}
    if have and validator:
        # If-Range: the server sends everything anew where its file is no longer the same.
        headers = {"Range": f"bytes={have}-", "If-Range": validator}
    try:
        response: HTTPResponse = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=_TIMEOUT
        )
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        os.truncate(part, 0)  # More is here than the server has: start anew.
        return _continue(url, part, bar, task)
    with response:
        partial = response.status == 206
        have = have if partial else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        mark = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if mark and not mark.startswith("W/"):
            write_json(_validator(part), {"validator": mark})
        bar.update(task, total=total and total // 1024, completed=have // 1024)
        with open(part, "ab" if partial else "wb") as file:
            while chunk := response.read1(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                bar.update(task, completed=have // 1024)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and have != total:
        raise ConnectionError(f"it ended after {have} of {total} bytes")


def _validator(part: Path) -> Path:
    return part.with_name(f".{part.name}.json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
