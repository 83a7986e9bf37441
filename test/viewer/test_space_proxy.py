# SPDX-License-Identifier: Apache-2.0
"""The scene below a path of another server: the same messages, both ends close, and a slow browser costs nothing."""

from __future__ import annotations

import queue
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
import pytest

pytest.importorskip("viser")

from starlette.applications import Starlette
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.viewer.space_door import Door
from clip_seg_ros.viewer.space_proxy import space_routes
from clip_seg_ros.viewer.space_scene import SpaceScene
from clip_seg_ros.viewer.views import View
from patience import until
from table_view import table_view
from viser_client import CAMERA, CLICK, PROTOCOL, ViserClient, near

CUP = "/cameras/0/1_label"


@pytest.fixture(scope="module")
def view(rendered: RenderedView) -> View:
    return table_view(rendered)


@pytest.fixture
def scene() -> Iterator[SpaceScene]:
    scene = SpaceScene(lambda *_: None)
    yield scene
    scene.close()


@pytest.fixture
def port(scene: SpaceScene, serve: Callable[[Any], Any]) -> Iterator[int]:
    with serve(Starlette(routes=space_routes(way_to(scene)))) as port:
        yield port


def way_to(scene: SpaceScene | None) -> Callable[[], Any]:
    async def door() -> Door | None:
        return None if scene is None else scene.door

    return door


def waiting(scene: SpaceScene) -> int:
    """How many clients viser has."""
    return len(scene._server._websock_server._client_state_from_id)


@pytest.mark.parametrize("path", ["/3d", "/3d/"])
def test_the_socket_speaks_as_viser_does(port: int, scene: SpaceScene, view: View, path: str) -> None:
    scene.update(view)
    with near(scene.door) as direct, ViserClient(f"ws://127.0.0.1:{port}{path}") as client:
        for each in (direct, client):
            each.until(lambda nodes: nodes.get(CUP, {}).get("text", "").startswith("red cup"), "the red cup")
            each.until(lambda nodes: "/cameras/0/surroundings" in nodes, "the points")
        assert client.subprotocol == PROTOCOL
        assert (client.nodes["/cameras/0/things"]["points"] == direct.nodes["/cameras/0/things"]["points"]).all()


@pytest.mark.parametrize(
    ("path", "viewer"), [("/3d", ""), ("/3d/mine-1", "mine-1"), ("/3d/mine-1/", "mine-1"), ("/3d/a%20b", "")]
)
def test_clicks_go_back(serve: Callable[[Any], Any], view: View, path: str, viewer: str) -> None:
    picked: queue.Queue = queue.Queue()
    scene = SpaceScene(lambda *what: picked.put(what))
    scene.update(view)
    with (
        serve(Starlette(routes=space_routes(way_to(scene)))) as port,
        ViserClient(f"ws://127.0.0.1:{port}{path}") as client,
    ):
        client.until(lambda nodes: "bindings" in nodes.get("/cameras/0/1_body", {}), "a box that can be clicked")
        client.send(CAMERA)
        client.send({**CLICK, "name": "/cameras/0/1_body"})

        assert picked.get(timeout=60) == ("", 1, viewer)
    scene.close()


def test_the_page_may_load_nothing_from_elsewhere(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/3d/?darkMode") as answer:
        policy = answer.headers["Content-Security-Policy"]
        text = answer.read().decode()

    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    own = {"'none'", "'self'", "'unsafe-inline'", "'unsafe-eval'", "blob:", "data:"}
    sources = {source for rule in rules.values() for source in rule}
    assert rules["default-src"] == ["'none'"]
    assert sources - own == {f"ws://127.0.0.1:{port}", f"wss://127.0.0.1:{port}"}
    assert "data-floating-window" in text.split("</head>")[0]


def test_the_path_without_a_slash_leads_to_the_page(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/3d") as answer:
        assert answer.url == f"http://127.0.0.1:{port}/3d/"


@pytest.mark.parametrize("offered", [["viser-v0.1.2"], ["chat", "superchat"], None])
def test_a_page_of_another_version_is_told_so(port: int, scene: SpaceScene, offered: list[str] | None) -> None:
    with (
        connect(f"ws://127.0.0.1:{port}/3d", subprotocols=offered, proxy=None) as client,
        pytest.raises(ConnectionClosed) as closed,
    ):
        client.recv(timeout=60)

    # viser's page takes 1002 for this, and does not try again.
    assert closed.value.rcvd.code == 1002
    assert PROTOCOL in closed.value.rcvd.reason
    assert waiting(scene) == 0


def test_without_a_scene_there_is_no_page(serve: Callable[[Any], Any]) -> None:
    with serve(Starlette(routes=space_routes(way_to(None)))) as port:
        with pytest.raises(HTTPError, match="503"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/3d/")
        with pytest.raises(InvalidStatus):
            connect(f"ws://127.0.0.1:{port}/3d", subprotocols=[PROTOCOL], proxy=None)


def test_a_scene_that_ended_refuses(serve: Callable[[Any], Any]) -> None:
    scene = SpaceScene(lambda *_: None)
    scene.close()
    with serve(Starlette(routes=space_routes(way_to(scene)))) as port, pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{port}/3d", subprotocols=[PROTOCOL], proxy=None)


def test_when_viser_ends_the_browser_is_told(port: int, scene: SpaceScene, view: View) -> None:
    scene.update(view)
    with ViserClient(f"ws://127.0.0.1:{port}/3d") as client:
        client.until(lambda nodes: CUP in nodes, "the red cup")
        scene.close()
        until(lambda: client.closed_with is not None, "the end")

        assert client.closed_with == 1001


@pytest.mark.parametrize("how", ["closes", "vanishes"])
def test_when_the_browser_goes_viser_forgets_it(port: int, scene: SpaceScene, view: View, how: str) -> None:
    scene.update(view)
    for _ in range(3):
        with ViserClient(f"ws://127.0.0.1:{port}/3d") as client:
            client.until(lambda nodes: CUP in nodes, "the red cup")
            if how == "vanishes":
                client.vanish()
        until(lambda: waiting(scene) == 0, "no client")


def test_text_is_no_message_of_viser(port: int, scene: SpaceScene, view: View) -> None:
    scene.update(view)
    with ViserClient(f"ws://127.0.0.1:{port}/3d") as client:
        client.until(lambda nodes: CUP in nodes, "the red cup")
        client._socket.send("hello")
        until(lambda: client.closed_with is not None, "the end")

        until(lambda: waiting(scene) == 0, "no client")


def memory_mb() -> float:
    """What this process holds in memory; scene and server are in it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def changing(view: View, index: int) -> View:
    """A view with other points and colours, and another name of the cup, at each index."""
    points, rgb = view.cloud.points_m + np.float32(0.001 * (index % 7)), view.cloud.rgb ^ np.uint8(index)
    thing = replace(view.things[0], prompt=f"cup number {index}")
    return replace(view, cloud=replace(view.cloud, points_m=points, rgb=rgb), things=(thing, *view.things[1:]))


def test_a_browser_that_hangs_costs_no_memory_and_sees_the_newest_in_the_end(
    port: int, scene: SpaceScene, view: View
) -> None:
    scene.update(view)
    with (
        ViserClient(f"ws://127.0.0.1:{port}/3d", max_queue=1) as slow,
        ViserClient(f"ws://127.0.0.1:{port}/3d") as quick,
    ):
        for client in (slow, quick):
            client.until(lambda nodes: nodes.get(CUP, {}).get("text"), "the red cup")
        slow.reading.clear()
        before = memory_mb()
        for index in range(1, 121):
            scene._draw(changing(view, index))  # faster than ``update`` draws
            quick.until(lambda nodes: nodes[CUP]["text"].startswith(f"cup number {index} "), "each view")
            quick.messages.clear()
        grown = memory_mb() - before

        assert quick.received_bytes > 20e6
        assert slow.received_bytes < 2e6
        assert grown < 8
        slow.reading.set()
        slow.until(lambda nodes: nodes[CUP]["text"].startswith("cup number 120 "), "the newest view")
