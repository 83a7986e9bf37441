# SPDX-License-Identifier: Apache-2.0
"""Serves the page of a review, as the view is served: to this machine, or to those who have its token."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from clip_seg_ros.annotation.review import Review, ReviewError
from clip_seg_ros.data.samples import DataError
from clip_seg_ros.viewer.loopback import LOOPBACK
from clip_seg_ros.viewer.page_server import PAGE, PageServer
from clip_seg_ros.viewer.pictures import width_for
from clip_seg_ros.viewer.review_pictures import ReviewPictures
from clip_seg_ros.viewer.review_pointing import MaskMaker
from clip_seg_ros.viewer.review_session import ReviewSession
from clip_seg_ros.viewer.source import Event

_AT_ONCE = 4


class ReviewServer:
    """Shows a review to any number of browsers.

    Args:
        review: The review, which the caller closes.
        masks: Finds better masks.
        host: Address to listen on; one that other machines reach needs a token.
        port: Its port; 0 for any that is free.
        token: What the address must hold; ``None``: none on loopback, and a random one elsewhere.
    """

    def __init__(
        self, review: Review, masks: MaskMaker, host: str = LOOPBACK, port: int = 0, token: str | None = None
    ) -> None:
        self._review, self._masks = review, masks
        self._pictures = ReviewPictures(review)
        self._server = PageServer(host, port, token)
        self._askers = ThreadPoolExecutor(_AT_ONCE, "reviewer's question")
        # One model answers them, one after the other.
        self._pointers = ThreadPoolExecutor(1, "mask of the review")
        self._drawers = ThreadPoolExecutor(_AT_ONCE, "picture of the review")
        self._sessions: set[ReviewSession] = set()

    def start(self) -> str:
        """Starts the server; returns the address to open in a browser, with its token.

        Raises:
            OSError: The address is not of this machine, or the port is taken.
        """
        routes = [
            Route("/", self._page),
            Route("/picture", self._picture),
            WebSocketRoute("/view", self._view),
            Mount("/page", StaticFiles(directory=PAGE, follow_symlink=True)),
        ]
        return self._server.serve(Starlette(routes=routes))

    def stop(self) -> None:
        """Ends it."""
        self._server.stop()
        for pool in (self._askers, self._pointers, self._drawers):
            pool.shutdown(wait=True, cancel_futures=True)

    async def _page(self, request: Request) -> Response:
        return FileResponse(PAGE / "review.html", headers={"Cache-Control": "no-cache"})

    async def _picture(self, request: Request) -> Response:
        """Returns a picture; its address has its version, so that browsers keep it."""
        query = request.query_params
        try:
            image, width = int(query.get("image", "")), width_for(float(query.get("width", "0")))
        except (ValueError, OverflowError):
            return PlainTextResponse("a picture has the number of an image and a width\n", 400)
        loop = asyncio.get_running_loop()
        try:
            with_masks = query.get("layer", "overlay") != "plain"
            jpeg = await loop.run_in_executor(self._drawers, self._jpeg, image, width, with_masks)
        except (DataError, ReviewError) as why:
            return PlainTextResponse(f"{why}\n", 404)
        return Response(jpeg, 200, {"Cache-Control": "private, max-age=86400"}, "image/jpeg")

    def _jpeg(self, image: int, width_px: int, with_masks: bool) -> bytes:
        self._review.require(image)
        return self._pictures.jpeg(image, width_px, with_masks)

    async def _view(self, connection: WebSocket) -> None:
        await connection.accept()
        session = ReviewSession(
            connection, self._askers, self._pointers, self._review, self._pictures, self._masks, self._tell_all
        )
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)

    def _tell_all(self, event: Event) -> None:
        for session in list(self._sessions):
            session.tell(event)
