"""Downloads from a server of our own: whole, resumed, changed meanwhile, refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from deflow.core.errors import DeFlowError
from deflow.core.files import sha256
from deflow.data.download import DownloadError, download_set
from deflow.data.provenance import check_files, provenance_file, read_json

NAME = "cube-single-play-v0"


class Server(ThreadingHTTPServer):
    """Serves bytes with ranges and an ETag; may break off a number of answers half way."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.mark = '"one"'
        self.breaks = 0
        self.wait: threading.Event | None = None
        self.ranges: list[str | None] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        body = self.server.files.get(self.path.strip("/"))
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        if body is None:
            self.send_error(404)
            return
        start = 0
        if wanted and self.headers.get("If-Range") == self.server.mark:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", self.server.mark)
        self.end_headers()
        rest = body[start:]
        if self.server.wait:
            self.server.wait.wait(10)
        if self.server.breaks:
            self.server.breaks -= 1
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        rng = np.random.default_rng(0)
        server.files = {f"{NAME}.npz": rng.bytes(900_000), f"{NAME}-val.npz": rng.bytes(90_000)}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def arrived(folder: Path, server: Server) -> bool:
    names = {*server.files, f"{NAME}.json"}
    return {path.name for path in folder.iterdir()} == names and all(
        (folder / name).read_bytes() == body for name, body in server.files.items()
    )


def test_both_files_arrive_and_their_checksums_are_kept(server: Server, tmp_path: Path) -> None:
    target = download_set(NAME, tmp_path, url=server.url)
    assert arrived(tmp_path, server)
    kept = read_json(provenance_file(target))["files"]
    assert kept[target.name] == {"bytes": 900_000, "sha256": sha256(target)}
    check_files(target, full=True)
    target.write_bytes(target.read_bytes()[:-1] + b"?")
    check_files(target)
    with pytest.raises(DeFlowError, match="another checksum"):
        check_files(target, full=True)


def test_broken_connections_are_continued(server: Server, tmp_path: Path) -> None:
    server.breaks = 3
    download_set(NAME, tmp_path, url=server.url)
    assert arrived(tmp_path, server)
    assert server.ranges[:4] == [None, "bytes=450000-", "bytes=675000-", "bytes=787500-"]


def test_what_an_earlier_process_fetched_is_continued(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.npz.part").write_bytes(server.files[f"{NAME}.npz"][:1000])
    (tmp_path / f".{NAME}.npz.part.json").write_text('{"validator": "\\"one\\""}')
    download_set(NAME, tmp_path, url=server.url)
    assert arrived(tmp_path, server)
    assert server.ranges[0] == "bytes=1000-"


@pytest.mark.parametrize("start", [b"of another file", b"?" * 1_000_000])
def test_a_part_of_another_version_is_thrown_away(
    start: bytes, server: Server, tmp_path: Path
) -> None:
    (tmp_path / f"{NAME}.npz.part").write_bytes(start)
    mark = "old" if len(start) < 100 else "one"
    (tmp_path / f".{NAME}.npz.part.json").write_text(f'{{"validator": "\\"{mark}\\""}}')
    download_set(NAME, tmp_path, url=server.url)
    assert arrived(tmp_path, server)


def test_of_several_processes_one_fetches_and_the_others_wait(
    server: Server, tmp_path: Path
) -> None:
    """Locks are of opened files, so that threads are as good as processes."""
    rest = threading.Event()
    server.wait = rest
    with ThreadPoolExecutor(3) as several:
        fetching = [several.submit(download_set, NAME, tmp_path, url=server.url) for _ in range(3)]
        while not server.ranges:
            rest.wait(0.01)
        rest.wait(0.3)  # The others come to the lock.
        asked = len(server.ranges)
        rest.set()
    assert asked == 1
    assert {each.result() for each in fetching} == {tmp_path / f"{NAME}.npz"}
    assert arrived(tmp_path, server)
    assert server.ranges == [None, None]


def test_a_generated_set_is_not_made_whole_with_the_official_one(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / f"{NAME}.npz").write_bytes(b"ours")
    provenance = tmp_path / f"{NAME}.json"
    provenance.write_text('{"made_by": "an oracle", "settings": {"seed": 3}}')
    with pytest.raises(DeFlowError, match=f"generate it again .`deflow data generate {NAME}"):
        download_set(NAME, tmp_path, url=server.url)
    assert "oracle" in provenance.read_text()
    assert not server.ranges
    (tmp_path / f"{NAME}.npz").unlink()
    download_set(NAME, tmp_path, url=server.url)
    assert arrived(tmp_path, server)


def test_what_cannot_be_fetched_is_said(server: Server, tmp_path: Path) -> None:
    del server.files[f"{NAME}-val.npz"]
    with pytest.raises(DownloadError, match="404"):
        download_set(NAME, tmp_path, url=server.url)
    with pytest.raises(DownloadError, match="could not be fetched"):
        download_set(NAME, tmp_path / "other", url="http://127.0.0.1:9")
    (tmp_path / "file").touch()
    with pytest.raises(DeFlowError, match="cannot be written"):
        download_set(NAME, tmp_path / "file", url=server.url)


@pytest.mark.parametrize(
    "beside",
    ['{"files": ["a"]}', '{"files": {"set.npz": 3}}', '{"files": {"set.npz": {}}}', "[" * 10**5],
)
def test_a_file_of_that_name_may_be_anybodys(beside: str, tmp_path: Path) -> None:
    target = tmp_path / "set.npz"
    target.write_bytes(b"content")
    provenance_file(target).write_text(beside)
    check_files(target, full=True)
