# SPDX-License-Identifier: Apache-2.0
"""Serves an application to those who may look (``gate``), from a thread of its own."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn

from clip_seg_ros.viewer.gate import Gate
from clip_seg_ros.viewer.loopback import is_loopback

PAGE = Path(__file__).parent / "page"
"""The files that browsers get."""
_GRACE_S = 1
"""The time in seconds that requests may take to end when the server ends."""
_START_S = 20.0


class PageServer:
    """Listens at an address, and serves there.

    Args:
        host: Address to listen on; one that other machines reach needs a token.
        port: Its port; 0 for any that is free.
        token: What the address must hold; ``None``: none on loopback, and a random one elsewhere.
    """

    def __init__(self, host: str, port: int, token: str | None) -> None:
        self._host, self._port = host, port
        self._token = secrets.token_urlsafe(18) if token is None and not is_loopback(host) else token
        self._listener: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def listen(self) -> None:
        """Takes the address, at which nobody is answered yet.

        Raises:
            OSError: The address is not of this machine, or the port is taken.
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._listener = socket.create_server((self._host, self._port), family=family)

    def serve(self, app: Any) -> str:
        """Serves an ASGI application; returns the address to open in a browser, with its token.

        Raises:
            OSError: The address cannot be had, or the server does not start.
        """
        if self._listener is None:
            self.listen()
        listener = self._listener
        assert listener is not None
        gate: Any = Gate(app, self._token)
        # Pictures are JPEG already, and a viewer that does not answer any more is let go.
        config = uvicorn.Config(
            gate,
            log_level="warning",
            timeout_graceful_shutdown=_GRACE_S,
            ws_per_message_deflate=False,
            ws_ping_interval=10.0,
            ws_ping_timeout=20.0,
        )
        self._server = uvicorn.Server(config)
        serve = self._server.serve(sockets=[listener])
        self._thread = threading.Thread(target=asyncio.run, args=(serve,), name="page server", daemon=True)
        self._thread.start()
        deadline_s = time.monotonic() + _START_S
        while not self._server.started and self._thread.is_alive() and time.monotonic() < deadline_s:
            time.sleep(0.01)
        if not self._server.started:
            raise OSError(f"the server did not start within {_START_S:g} s")
        # Whoever listens everywhere is reached here by this name.
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self._host, self._host)
        shown = f"[{host}]" if ":" in host else host
        token = "" if self._token is None else f"?token={quote(self._token, safe='')}"
        return f"http://{shown}:{listener.getsockname()[1]}/{token}"

    def stop(self) -> None:
        """Ends the server."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
        if self._listener is not None:
            self._listener.close()
