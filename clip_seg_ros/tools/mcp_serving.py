# SPDX-License-Identifier: Apache-2.0
"""Serves the tools of ``clip-seg mcp`` over stdin and stdout, or over HTTP; the package mcp is needed."""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
from collections.abc import Sequence
from typing import Any

import uvicorn
from starlette.responses import PlainTextResponse

from clip_seg_ros.tools.asking import Questioner
from clip_seg_ros.tools.mcp_tools import server_of

_WHAT = "clip-seg mcp"
_GRACE_S = 2
"""The time in seconds that requests may take to end when the server is ended."""


def serve_stdio(arguments: Sequence[str]) -> int:
    """Serves until stdin ends.

    Args:
        arguments: Those of the process that asks the nodes.

    Raises:
        NoRos: This Python has no ROS.
    """
    with Questioner(_WHAT, arguments) as questioner:
        asyncio.run(server_of(questioner).run_stdio_async())
    return 0


def serve_http(arguments: Sequence[str], host: str, port: int, token: str | None) -> int:
    """Serves streamable HTTP at ``http://HOST:PORT/mcp`` until SIGINT or SIGTERM.

    Args:
        arguments: Those of the process that asks the nodes.
        host: Address to listen on.
        port: Its port; 0 for any that is free.
        token: What requests must bring; ``None``: nothing.

    Raises:
        NoRos: This Python has no ROS.
        OSError: The address is not of this machine, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener, Questioner(_WHAT, arguments) as questioner:
        app: Any = server_of(questioner).streamable_http_app(host=host)
        if token is not None:
            app = TokenGate(app, token)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_GRACE_S)
        shown = f"[{host}]" if ":" in host else host
        print(f"{_WHAT}: serving at http://{shown}:{listener.getsockname()[1]}/mcp", file=sys.stderr, flush=True)
        asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))
    return 0


class TokenGate:
    """Answers requests without the right token with 401, and passes on all others.

    Args:
        app: The ASGI application behind the gate.
        token: What the header ``Authorization: Bearer TOKEN`` must hold.
    """

    def __init__(self, app: Any, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Handles a connection, as ASGI has it."""
        if scope["type"] == "lifespan" or self._is_right(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            text = "clip-seg mcp: this needs the header 'Authorization: Bearer TOKEN' with the token of the server\n"
            refusal = PlainTextResponse(text, 401, headers={"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _is_right(self, scope: dict[str, Any]) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(b" ")
        return scheme.lower() == b"bearer" and secrets.compare_digest(token.strip(), self._token)
