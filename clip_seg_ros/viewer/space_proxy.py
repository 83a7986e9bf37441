# SPDX-License-Identifier: Apache-2.0
"""Brings viser, which listens on loopback alone, under a path of the viewer's own server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import viser
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from clip_seg_ros.viewer.loopback import LOOPBACK
from clip_seg_ros.viewer.space_door import KEY_HEADER, VIEWER_HEADER, Door

PROTOCOL = f"viser-v{viser.__version__}"
PAGE = Path(viser.__file__).parent / "client" / "build" / "index.html"
"""All of viser's page is in this file."""
LARGEST_BYTES = 64 * 2**20
WAITING = 2
"""How many messages wait for a slow browser; then viser waits, which keeps only the newest state of each thing."""
# viser's own panel would lie over the scene; on phones it is a sheet at the bottom.
STYLE = '<style>[data-floating-window], .mantine-Paper-root[style*="bottom: 0px"] { display: none !important; }</style>'
_HOST = re.compile(r"[\w.:\[\]-]+")
_VIEWER = re.compile(r"[A-Za-z0-9-]{1,80}")
# Codes that a side may not send: they say that there was none.
_UNSPOKEN = {1004, 1005, 1006, 1015}


def space_routes(door: Callable[[], Awaitable[Door | None]], path: str = "/3d") -> list[BaseRoute]:
    """Returns the routes of the page ``path``/ and of the WebSocket that the page opens at ``path``.

    Whoever may open the page and the socket is for the server around them to decide. The address of the page may end
    with ``?darkMode``. A viewer with a name, of letters, digits and "-", opens ``path``/NAME/ instead; the scene is
    then told who clicked.

    Args:
        door: Returns where viser listens; ``None``: nowhere now.
        path: Begins with a slash and does not end with one.
    """

    async def page(request: Request) -> Response:
        if await door() is None:
            return PlainTextResponse("There is no view in 3D now.", 503)
        text = PAGE.read_text(encoding="utf-8").replace("</head>", f"{STYLE}</head>", 1)
        return HTMLResponse(text, headers={"Content-Security-Policy": _policy(request), "Cache-Control": "no-cache"})

    async def socket(browser: WebSocket) -> None:
        viewer = browser.path_params.get("viewer", "")
        await _serve(browser, await door(), viewer if _VIEWER.fullmatch(viewer) else "")

    routes: list[BaseRoute] = []
    for place in (path, f"{path}/{{viewer}}"):
        routes += [Route(f"{place}/", page), WebSocketRoute(place, socket), WebSocketRoute(f"{place}/", socket)]
    return routes


def _policy(request: Request) -> str:
    """Says to the browser that the page loads nothing, and talks to nobody but this server."""
    host = request.headers.get("host", "")
    sockets = f"ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
    return (
        "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob: data:; style-src 'unsafe-inline'; "
        f"img-src data: blob:; font-src data:; worker-src blob: data:; connect-src 'self' data: blob: {sockets}; "
        "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
    )


async def _serve(browser: WebSocket, door: Door | None, viewer: str) -> None:
    if door is None:
        await browser.close()  # before it was accepted: the browser gets 403
        return
    if PROTOCOL not in browser.scope["subprotocols"]:
        offered = ", ".join(browser.scope["subprotocols"]) or "none"
        await browser.accept(next(iter(browser.scope["subprotocols"]), None))
        await browser.close(1002, f"the page is of another version, load it again: {offered} is not {PROTOCOL}"[:120])
        return
    try:
        viser_side = await connect(
            f"ws://{LOOPBACK}:{door.port}", subprotocols=[PROTOCOL], compression=None, max_size=LARGEST_BYTES,
            max_queue=WAITING, ping_interval=None, proxy=None,
            additional_headers={KEY_HEADER: door.key, VIEWER_HEADER: viewer},
        )  # fmt: skip
    except (OSError, TimeoutError, InvalidHandshake):
        await browser.close()
        return
    try:
        await browser.accept(PROTOCOL)
        await _relay(browser, viser_side)
    finally:
        await viser_side.close()


async def _relay(browser: WebSocket, viser_side: ClientConnection) -> None:
    """Passes messages on both ways until one side ends, and ends the other one."""
    ways = [asyncio.create_task(_to_viser(browser, viser_side)), asyncio.create_task(_to_browser(viser_side, browser))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
    if browser.client_state is WebSocketState.CONNECTED and browser.application_state is WebSocketState.CONNECTED:
        code = viser_side.close_code or 1001
        with suppress(RuntimeError, WebSocketDisconnect):  # it went at the same time
            await browser.close(1001 if code in _UNSPOKEN else code, viser_side.close_reason or "")


async def _to_viser(browser: WebSocket, viser_side: ClientConnection) -> None:
    while True:
        message = await browser.receive()
        data = message.get("bytes")
        if data is None:
            return  # it is gone, or it speaks another language: viser's messages are bytes
        try:
            await viser_side.send(data)
        except ConnectionClosed:
            return


async def _to_browser(viser_side: ClientConnection, browser: WebSocket) -> None:
    try:
        while True:
            await browser.send_bytes(await viser_side.recv(decode=False))
    except (ConnectionClosed, WebSocketDisconnect):
        return
