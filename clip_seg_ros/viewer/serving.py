# SPDX-License-Identifier: Apache-2.0
"""Serves the page of the viewer."""

from __future__ import annotations

import asyncio
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from clip_seg_ros.sources.bag_messages import RecordingError
from clip_seg_ros.viewer.hub import Hub
from clip_seg_ros.viewer.loopback import LOOPBACK
from clip_seg_ros.viewer.page_server import PAGE, PageServer
from clip_seg_ros.viewer.pictures import LAYERS, Pictures, drawn, encoded
from clip_seg_ros.viewer.recorder import Recorder
from clip_seg_ros.viewer.session import Session
from clip_seg_ros.viewer.source import Event, Source
from clip_seg_ros.viewer.space_door import Door
from clip_seg_ros.viewer.space_proxy import space_routes
from clip_seg_ros.viewer.space_scene import SpaceScene
from clip_seg_ros.viewer.views import View

_SAVED_QUALITY = 95
_QUESTIONS_AT_ONCE = 8


class ViewServer:
    """Shows a source to any number of browsers.

    Args:
        source: What is shown; it is started and stopped with the server.
        host: Address to listen on; one that other machines reach needs a token.
        port: Its port; 0 for any that is free.
        token: What the address must hold; ``None``: none on loopback, and a random one elsewhere.
    """

    def __init__(self, source: Source, host: str = LOOPBACK, port: int = 0, token: str | None = None) -> None:
        self._server = PageServer(host, port, token)
        self._hub = Hub(source)
        self._pictures = Pictures()
        # Of its own: whoever asks a busy node waits, and pictures must not wait with them.
        self._askers = ThreadPoolExecutor(_QUESTIONS_AT_ONCE, "viewer's question")
        self._recorder = Recorder()
        self._recorded: dict[str, float] = {}
        """When the newest picture of each camera that was recorded came."""
        self._sessions: dict[str, Session] = {}
        """Those who look, by the names that their pages have made up."""
        self._scene: SpaceScene | None = None
        self._making_scene = asyncio.Lock()

    def start(self) -> str:
        """Starts source and server; returns the address to open in a browser, with its token.

        Raises:
            OSError: The address is not of this machine, or the port is taken.
        """
        self._server.listen()
        self._hub.start()
        return self._server.serve(self._app())

    def stop(self) -> None:
        """Ends both."""
        self._server.stop()
        self._hub.stop()
        self._askers.shutdown(wait=False, cancel_futures=True)
        if self._scene is not None:
            self._scene.close()

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self._page),
                Route("/picture", self._picture),
                Route("/recording", self._recording),
                WebSocketRoute("/view", self._view),
                # colcon links the files of a package instead of copying them.
                Mount("/page", StaticFiles(directory=PAGE, follow_symlink=True)),
                *space_routes(self._door),
            ]
        )

    async def _page(self, request: Request) -> Response:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    async def _picture(self, request: Request) -> Response:
        """Returns what a viewer sees of a camera, or else the newest picture of it, in its full size, to be saved."""
        layer = request.query_params.get("layer", "overlay")
        camera = request.query_params.get("camera", "")
        session = self._sessions.get(request.query_params.get("viewer", ""))
        seen = None if session is None else session.on_screen
        view = seen if seen is not None and seen.camera == camera else self._hub.newest(camera)
        if layer not in LAYERS or view is None:
            return PlainTextResponse(f"there is no picture of the camera {camera!r} now\n", 404)
        data = await asyncio.to_thread(lambda: encoded(drawn(view, layer), _SAVED_QUALITY))
        name = f"{camera.replace('/', '_') or 'camera'}_{view.stamp_ns}.jpg"
        return Response(data, 200, {"Content-Disposition": f'attachment; filename="{name}"'}, "image/jpeg")

    async def _view(self, connection: WebSocket) -> None:
        await connection.accept()
        session = Session(connection, self._hub, self._pictures, self._askers, self._record)
        viewer = connection.query_params.get("viewer", "")
        if viewer:
            self._sessions[viewer] = session
        try:
            await session.run()
        finally:
            # A page whose connection broke may have come back by another one.
            if self._sessions.get(viewer) is session:
                del self._sessions[viewer]

    # What was shown, as a recording.

    def _record(self, view: View, jpeg: bytes) -> None:
        # Several viewers get the same picture.
        if view.arrived_s > self._recorded.get(view.camera, 0.0):
            self._recorded[view.camera] = view.arrived_s
            self._recorder.add(view, jpeg)

    async def _recording(self, request: Request) -> Response:
        folder = tempfile.TemporaryDirectory(prefix="clip_seg_ros_recording_")
        name = f"clip_seg_{time.strftime('%Y%m%d_%H%M%S')}.mcap"
        try:
            await asyncio.to_thread(self._recorder.write, Path(folder.name) / name)
        except RecordingError as why:
            folder.cleanup()
            return PlainTextResponse(f"{why}\n", 404)
        path = Path(folder.name) / name
        return FileResponse(path, filename=name, background=BackgroundTask(folder.cleanup))

    # The view in 3D.

    async def _door(self) -> Door | None:
        """Returns the way to the scene, which is made when somebody first looks at it."""
        async with self._making_scene:
            if self._scene is None:
                # On another thread, because everybody else is served meanwhile.
                await asyncio.to_thread(self._make_scene)
        return None if self._scene is None else self._scene.door

    def _make_scene(self) -> None:
        scene = self._scene = SpaceScene(self._picked)

        def show(view: View) -> None:
            if self._hub.wanted.space:
                scene.update(view)

        def tell(event: Event) -> None:
            if event["event"] == "gone":
                scene.clear()

        self._hub.join(scene, show, tell)

    def _picked(self, camera: str, number: int, viewer: str) -> None:
        if session := self._sessions.get(viewer):
            session.tell({"event": "picked", "camera": camera, "id": number})
