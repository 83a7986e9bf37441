# SPDX-License-Identifier: Apache-2.0
"""A rendered table to show, servers on free ports, and a browser where Chromium is installed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from browsers import chromium
from clip_seg_ros.sim.renderer import RenderedView
from table_view import render_table


@pytest.fixture(scope="session")
def rendered() -> RenderedView:
    return render_table()


@pytest.fixture(scope="session")
def serve() -> Callable[[Any], Any]:
    """Serves an ASGI application: ``with serve(app) as port``."""
    uvicorn = pytest.importorskip("uvicorn")

    @contextmanager
    def serving(app: Any) -> Iterator[int]:
        config = uvicorn.Config(app, log_level="warning", ws_per_message_deflate=False)
        server = uvicorn.Server(config)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()  # who comes before the server is up waits
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                yield listener.getsockname()[1]
            finally:
                server.should_exit = True
                thread.join()

    return serving


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started
