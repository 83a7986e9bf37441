# SPDX-License-Identifier: Apache-2.0
"""The view in 3D: points, boxes and names of the things of all cameras, served by viser to browsers of this machine."""

from __future__ import annotations

import atexit
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import rich
import viser
from viser.infra import WebsockClientConnection
from websockets.asyncio.server import ServerConnection

from clip_seg_ros.viewer.loopback import LOOPBACK
from clip_seg_ros.viewer.space_door import KEY_HEADER, VIEWER_HEADER, Door
from clip_seg_ros.viewer.space_geometry import first_look
from clip_seg_ros.viewer.space_nodes import CameraNodes
from clip_seg_ros.viewer.views import View

PERIOD_S = 0.2
"""A camera is drawn at most once in this time."""
ASIDE_M = 2.0
"""How far frames of which nobody knows how they lie are drawn from each other."""
FOV_RAD = 0.8
RENEW_AFTER = 10_000
"""After so many drawings viser is started anew when the last browser has gone, because it counts all messages since its
start for whoever comes: half a second after an hour of drawing, and 6 seconds after half a day."""

_LOG = logging.getLogger(__name__)


def _header(connection: ServerConnection, name: str) -> bytes:
    """Returns a header of the handshake; empty if it is not there once."""
    values = [] if connection.request is None else connection.request.headers.get_all(name)
    return values[0].encode("utf-8", "surrogateescape") if len(values) == 1 else b""


class _Server(viser.ViserServer):
    """Listens on loopback, where every user of the machine may knock, and serves only those who bring the key."""

    def __init__(self) -> None:
        self.key = secrets.token_urlsafe(32)
        self._viewers: dict[int, str] = {}
        super().__init__(host=LOOPBACK, port=0, verbose=False)
        self._websock_server.on_client_connect(self._let_in)
        self._websock_server.on_client_disconnect(lambda client: self._viewers.pop(client.client_id, None))
        # Whoever came while it was starting was not asked.
        self._websock_server.disconnect_all_clients()

    async def _let_in(self, client: WebsockClientConnection) -> None:
        """Closes a connection without the key before anything is sent or taken; viser then forgets it."""
        connection = self._websock_server._live_connections[client.client_id]
        if not secrets.compare_digest(_header(connection, KEY_HEADER), self.key.encode()):
            await connection.close(1008, "this is not for you")
            return
        self._viewers[client.client_id] = _header(connection, VIEWER_HEADER).decode()

    def viewer(self, client_id: int) -> str:
        """Returns the name of the viewer who looks through a client of viser; empty if it has none."""
        return self._viewers.get(client_id, "")

    def request_share_url(self, verbose: bool = True) -> str | None:
        """Shares nothing, whoever asks for it: it would go by way of another company's machine."""
        return None


@contextmanager
def _silence() -> Iterator[None]:
    """Keeps viser's greeting and farewell from the standard output, which belongs to the program."""
    console = rich.get_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


class SpaceScene:
    """Draws views in a scene that any number of browsers look at. All methods may be called from any thread.

    It listens on a port of loopback that is free, for whoever brings its key; ``space_proxy`` brings it under the
    address of the viewer. The scene is light, or dark for those whose address has ``?darkMode``. To make one takes a
    while.

    Args:
        on_pick: Called with the name of the camera, the id of a thing that was clicked, and the name of the viewer who
            clicked it, from any thread.
    """

    def __init__(self, on_pick: Callable[[str, int, str], None]) -> None:
        self._on_pick = on_pick
        self._changed = threading.Condition()
        self._waiting: dict[str, View] = {}
        self._closed = self._is_old = self._is_over = False
        self._drawing = threading.Lock()
        self._drawn: dict[str, View] = {}
        self._cameras: dict[str, CameraNodes] = {}
        self._places: dict[tuple[str, str], int] = {}
        self._numbers: dict[str, int] = {}
        self._look: tuple[np.ndarray, np.ndarray] | None = None
        self._drawings = 0
        self._server = self._serve()
        self._thread = threading.Thread(target=self._run, name="space_scene", daemon=True)
        self._thread.start()
        # Before viser's own farewell, which would speak.
        atexit.register(self.close)

    def _serve(self) -> _Server:
        with _silence():
            server = _Server()
        server.gui.configure_theme(show_logo=False, show_share_button=False)
        server.gui.main_panel.minimize()
        # Points and lines have colours of their own; the boxes are lit from all sides.
        server.scene.configure_environment_map(None)
        server.scene.configure_default_lights(True, cast_shadow=False)
        server.scene.add_light_ambient("/light", intensity=2.0)
        server.on_client_connect(self._welcome)
        server.on_client_disconnect(self._farewell)
        return server

    @property
    def door(self) -> Door:
        """Where viser listens on loopback, and its key; both may change while nobody looks."""
        server = self._server
        return Door(server.get_port(), server.key)

    def update(self, view: View) -> None:
        """Takes the newest view of a camera and returns at once; it is drawn soon, unless a newer one comes before."""
        with self._changed:
            if not self._closed:
                self._waiting[view.camera] = view
                self._changed.notify()

    def clear(self) -> None:
        """Removes everything soon, and returns at once; a view that comes afterwards is looked at anew."""
        with self._changed:
            self._waiting.clear()
            self._is_over = True
            self._changed.notify()

    def _wipe(self) -> None:
        with self._drawing:
            for nodes in self._cameras.values():
                nodes.remove()
            self._cameras.clear()
            self._drawn.clear()
            self._places.clear()
            self._numbers.clear()
            self._look = None

    def close(self) -> None:
        """Ends drawing and serving."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify()
        atexit.unregister(self.close)
        self._thread.join()
        with _silence():
            self._server.stop()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._is_over or self._is_old or self._closed):
                    self._changed.wait()
                if self._closed:
                    return
                works = self._take_works()
            began = time.monotonic()
            for work in works:
                try:
                    work()
                except Exception:  # of one view; the next one may be drawn
                    _LOG.exception("the view in 3D could not be drawn")
            with self._changed:
                self._changed.wait_for(lambda: self._closed, max(0.0, began + PERIOD_S - time.monotonic()))

    def _take_works(self) -> list[Callable[[], None]]:
        """Returns what there is to do, the oldest first."""
        works: list[Callable[[], None]] = []
        if self._is_over:
            works.append(self._wipe)
        if self._is_old:
            works.append(self._renew)
        works += [partial(self._draw, view) for view in self._waiting.values()]
        self._is_over = self._is_old = False
        self._waiting = {}
        return works

    def _draw(self, view: View) -> None:
        with self._drawing:
            self._paint(view)
            self._drawn[view.camera] = view

    def _paint(self, view: View) -> None:
        with self._server.atomic():
            self._drawings += 1
            nodes = self._cameras.get(view.camera)
            if nodes is None:
                number = self._numbers.setdefault(view.camera, len(self._numbers))
                pick = partial(self._pick, self._server, view.camera)
                nodes = CameraNodes(self._server.scene, f"/cameras/{number}", pick)
                self._cameras[view.camera] = nodes
            offset = self._offset(view)
            nodes.draw(view, offset)
            self._look_at_first(view, nodes.turn(view), offset)

    def _pick(self, server: _Server, camera: str, number: int, client_id: int) -> None:
        self._on_pick(camera, number, server.viewer(client_id))

    def _renew(self) -> None:
        """Starts viser anew with what was drawn last, unless somebody came meanwhile."""
        with self._drawing:
            if self._server.get_clients():
                return
            old, self._server = self._server, self._serve()
            self._cameras.clear()
            self._look, self._drawings = None, 0
            for view in self._drawn.values():
                self._paint(view)
        with _silence():
            old.stop()

    def _offset(self, view: View) -> np.ndarray:
        """Cameras of one known frame share their place; those in frames of their own stand side by side."""
        key = ("camera", view.camera) if view.camera_pose is None else ("frame", view.frame)
        return np.array([ASIDE_M * self._places.setdefault(key, len(self._places)), 0.0, 0.0])

    def _look_at_first(self, view: View, turn: np.ndarray, offset: np.ndarray) -> None:
        look = None if self._look is not None else first_look(view)
        if look is None:
            return
        eye, target = (turn @ spot + offset for spot in look)
        self._look = eye, target
        start = self._server.initial_camera
        start.position, start.look_at, start.fov = eye, target, FOV_RAD
        for client in self._server.get_clients().values():
            self._turn_to(client)

    def _welcome(self, client: viser.ClientHandle) -> None:
        """Turns to the things somebody whose page was opened just before they came."""
        with self._drawing:
            if self._look is not None:
                self._turn_to(client)

    def _farewell(self, client: viser.ClientHandle) -> None:
        if self._drawings >= RENEW_AFTER and not self._server.get_clients():
            with self._changed:
                self._is_old = True
                self._changed.notify()

    def _turn_to(self, client: viser.ClientHandle) -> None:
        eye, target = self._look
        with client.atomic():
            client.camera.position, client.camera.look_at, client.camera.fov = eye, target, FOV_RAD
