# SPDX-License-Identifier: Apache-2.0
"""Lets only those in who may look, and gives pages the headers that keep browsers from loading anything elsewhere."""

from __future__ import annotations

import hashlib
import secrets
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse

from clip_seg_ros.viewer.loopback import is_loopback

_COOKIE = "clip_seg_view"
_NOBODY = "This view is private: open the address that its server printed, with the token in it.\n"
_STRANGER = "This address does not belong to the view.\n"
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; connect-src 'self' {sockets}; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)


class Gate:
    """An ASGI application before another one.

    With a token, every request must bring it, in the address (``?token=``) or in the cookie that is set then. Without,
    the address must be that of this machine, so that no page elsewhere can get in by a name that it made point here.
    WebSockets are for pages of this server alone.

    Args:
        app: The application behind the gate.
        token: The token; ``None``: none is needed.
    """

    def __init__(self, app: Any, token: str | None) -> None:
        self._app, self._token = app, token
        # Browsers keep cookies in files: not the token itself.
        self._pass = "" if token is None else hashlib.sha256(f"clip_seg view {token}".encode()).hexdigest()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Handles a connection, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is None:
            await self._app(scope, receive, self._with_headers(scope, headers, send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, send)

    def _refusal(self, scope: dict[str, Any], headers: dict[str, str]) -> PlainTextResponse | None:
        host = headers.get("host", "")
        if not _is_host(host):
            return PlainTextResponse(_STRANGER, 400)
        if self._token is None and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return PlainTextResponse(_STRANGER, 421)
        if self._token is not None and not self._brings_token(scope, headers):
            return PlainTextResponse(_NOBODY, 401)
        origin = headers.get("origin")
        if scope["type"] == "websocket" and origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse(_STRANGER, 403)
        return None

    def _brings_token(self, scope: dict[str, Any], headers: dict[str, str]) -> bool:
        return self._names_token(scope) or secrets.compare_digest(_cookie(headers), self._pass.encode())

    def _names_token(self, scope: dict[str, Any]) -> bool:
        named = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])
        return self._token is not None and secrets.compare_digest(named[0].encode(), self._token.encode())

    def _with_headers(self, scope: dict[str, Any], headers: dict[str, str], send: Any) -> Any:
        # Old browsers do not count WebSockets of the same server as 'self'.
        sockets = " ".join(f"{scheme}://{headers.get('host', '')}" for scheme in ("ws", "wss"))
        added = [
            (b"content-security-policy", _POLICY.format(sockets=sockets).encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"x-content-type-options", b"nosniff"),
        ]
        if self._names_token(scope):
            cookie = f"{_cookie_name(headers)}={self._pass}; Path=/; HttpOnly; SameSite=Strict"
            added.append((b"set-cookie", cookie.encode()))

        async def send_with_headers(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", []))
                names = {name.lower() for name, _ in given}
                message = message | {"headers": [*given, *(each for each in added if each[0] not in names)]}
            await send(message)

        return send_with_headers


def _cookie_name(headers: dict[str, str]) -> str:
    # Browsers send the cookies of all ports of a host to each of them.
    return f"{_COOKIE}_{urlsplit('//' + headers.get('host', '')).port or 80}"


def _cookie(headers: dict[str, str]) -> bytes:
    return cookie_parser(headers.get("cookie", "")).get(_cookie_name(headers), "").encode()


def _is_host(host: str) -> bool:
    """Returns whether a header names a host and perhaps a port."""
    with suppress(ValueError):
        parts = urlsplit(f"//{host}")
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    return False
