# SPDX-License-Identifier: Apache-2.0
"""A server on this machine that speaks as much of the Hugging Face hub's protocol as downloads need."""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

from clip_seg_ros.models.checkpoints import sha256

COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""The commit that the server states for whatever it holds."""


def address(repository: str, file: str) -> str:
    """Returns the path of a file of OWNER/NAME on the server."""
    return f"/{repository}/resolve/main/{file}"


class HubHandler(BaseHTTPRequestHandler):
    """Answers a request; subclasses may answer wrongly."""

    protocol_version = "HTTP/1.1"
    files: Mapping[str, Path]
    """The files by their ``address``."""
    missing = "EntryNotFound"
    """The error code for what is not in ``files``."""
    status = 404
    """The status of the answer for what is not in ``files``."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *args: object) -> None:
        pass

    def digest(self, file: Path) -> str:
        """Returns the SHA-256 that the server states for a file."""
        return _digest(file, file.stat().st_mtime_ns)

    def send(self, source: IO[bytes]) -> None:
        """Sends the rest of a file."""
        shutil.copyfileobj(source, self.wfile, 1 << 20)

    def _answer(self, body: bool) -> None:
        file = self.files.get(self.path)
        if file is None:
            self.send_response(self.status)
            self.send_header("X-Error-Code", self.missing)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        wanted, size = self.headers.get("Range"), file.stat().st_size
        first = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Etag", f'"{self.digest(file)}"')
        self.send_header("X-Linked-Size", str(size))
        self.send_header("ETag", '"another"')
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - first))
        self.end_headers()
        if body:
            with file.open("rb") as source:
                source.seek(first)
                self.send(source)


@functools.lru_cache(16)
def _digest(file: Path, changed_ns: int) -> str:
    return sha256(file)


@contextmanager
def served(handler: type[HubHandler]) -> Iterator[str]:
    """Serves what ``handler`` holds until the block is left; yields the address for ``HF_ENDPOINT``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
