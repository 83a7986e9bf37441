# SPDX-License-Identifier: Apache-2.0
"""The scene in a real browser, in a frame of another page: it is drawn and can be clicked, and nothing is fetched."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("viser")

from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route
from viser.transforms import SO3

from clip_seg_ros.pipeline.lettering import Color
from clip_seg_ros.pipeline.overlay import prompt_colors
from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.viewer.space_door import Door
from clip_seg_ros.viewer.space_geometry import first_look
from clip_seg_ros.viewer.space_nodes import EDGES
from clip_seg_ros.viewer.space_proxy import space_routes
from clip_seg_ros.viewer.space_scene import FOV_RAD, SpaceScene
from clip_seg_ros.viewer.views import Thing, View
from patience import until
from table_view import table_view

SIZE = (800, 600)
FRAME = (
    '<link rel="icon" href="data:,"><body style="margin:0">'
    '<iframe src="/3d/{}" style="border:0;width:100vw;height:100vh"></iframe>'
)


@pytest.fixture(scope="module")
def view(rendered: RenderedView) -> View:
    return table_view(rendered, in_world=True)


@pytest.fixture(scope="module")
def picked() -> queue.Queue:
    return queue.Queue()


@pytest.fixture(scope="module")
def port(view: View, picked: queue.Queue, serve: Callable[[Any], Any]) -> Iterator[int]:
    """A server whose pages /light and /dark have the scene in a frame."""
    scene = SpaceScene(lambda *what: picked.put(what))
    scene.update(view)
    pages = [
        Route("/light", lambda _: HTMLResponse(FRAME.format("me-1/"))),
        Route("/dark", lambda _: HTMLResponse(FRAME.format("somebody-1/?darkMode"))),
    ]

    async def door() -> Door:
        return scene.door

    with serve(Starlette(routes=[*pages, *space_routes(door)])) as port:
        yield port
    scene.close()


@pytest.fixture(scope="module")
def opened(browser: Any, port: int) -> Iterator[Callable[[str], tuple[Any, list[str], list[str]]]]:
    """Opens a page, and returns it with the addresses that it asked for and the errors that it told."""
    pages = []

    def open_page(path: str) -> tuple[Any, list[str], list[str]]:
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
        pages.append(page)
        asked: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/{path}")
        return page, asked, errors

    yield open_page
    for page in pages:
        page.close()


def picture_of(page: Any) -> np.ndarray:
    """Returns what the page shows, (H, W, 3) uint8 RGB."""
    return cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def place_px(view: View, spot_m: np.ndarray) -> tuple[float, float]:
    """Where a point of the world is in the first look."""
    eye, target = first_look(view)
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    x, y, z = np.stack([right, np.cross(forward, right), forward]) @ (spot_m - eye)
    focal = SIZE[1] / 2 / np.tan(FOV_RAD / 2)
    return SIZE[0] / 2 + focal * x / z, SIZE[1] / 2 + focal * y / z


def share_drawn(picture: np.ndarray, view: View, thing: Thing, color: Color) -> float:
    """Returns how much of the edges of a thing's box is drawn where they are, in the hue of a colour."""
    x, y, z, w = thing.box_m.orientation_xyzw
    turn = SO3(np.array([w, x, y, z])).as_matrix()
    along = np.linspace(0, 1, 15)[:, None, None]
    spots = (EDGES[:, 0] * (1 - along) + EDGES[:, 1] * along).reshape(-1, 3) * thing.box_m.size_m
    hues = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV_FULL).astype(int)
    wanted = int(cv2.cvtColor(np.uint8([[color]]), cv2.COLOR_RGB2HSV_FULL)[0, 0, 0])
    found = []
    for spot in spots @ turn.T + thing.box_m.center_m:
        column, row = (round(value) for value in place_px(view, spot))
        around = hues[row - 2 : row + 3, column - 2 : column + 3].reshape(-1, 3)
        off = np.abs((around[:, 0] - wanted + 128) % 256 - 128)
        found.append(((off < 8) & (around[:, 1] > 50)).any())
    return float(np.mean(found))


def least_drawn(page: Any, view: View) -> float:
    """Returns how much is drawn of the box of which the least is."""
    picture, colors = picture_of(page), prompt_colors(view.prompts)
    return min(share_drawn(picture, view, thing, colors[thing.prompt]) for thing in view.things if thing.id)


def is_drawn(page: Any, view: View) -> bool:
    return least_drawn(page, view) > 0.45


@pytest.fixture(scope="module")
def light(opened: Any, view: View) -> tuple[Any, list[str], list[str]]:
    page, asked, errors = opened("light")
    until(lambda: is_drawn(page, view), "boxes of all things", 180)
    return page, asked, errors


def test_boxes_of_all_things_are_drawn_where_they_are(light: Any, view: View) -> None:
    assert least_drawn(light[0], view) > 0.45


def test_boxes_have_no_other_colours(light: Any, view: View) -> None:
    picture, colors = picture_of(light[0]), prompt_colors(view.prompts)
    cup = next(thing for thing in view.things if thing.prompt == "red cup")

    for prompt in ("white bowl", "orange plate"):  # orange, and bluish green
        assert share_drawn(picture, view, cup, colors[prompt]) < 0.2


def test_points_and_table_are_drawn(light: Any) -> None:
    picture = picture_of(light[0])

    assert (picture[300:] < 250).any(axis=-1).mean() > 0.1


def test_nothing_of_viser_lies_over_the_scene(light: Any) -> None:
    (frame,) = [frame for frame in light[0].frames if "/3d/" in frame.url]

    assert frame.locator("[data-floating-window]").count() == 1
    assert not frame.locator("[data-floating-window]").first.is_visible()
    assert "Share" not in frame.locator("body").inner_text()


def test_nothing_is_fetched_from_elsewhere(light: Any, port: int) -> None:
    _, asked, errors = light
    server = f"127.0.0.1:{port}"

    assert {url for url in asked if not url.startswith(("data:", "blob:"))} == {
        f"http://{server}/light",
        f"http://{server}/3d/me-1/",
        f"ws://{server}/3d/me-1",
    }
    assert errors == []


def test_a_click_on_a_box_names_the_thing(light: Any, picked: queue.Queue, view: View) -> None:
    # The plate is flat and far from the others: nothing is before it.
    for prompt in ("orange plate", "red cup"):
        (thing,) = [thing for thing in view.things if thing.prompt == prompt]
        x, y = place_px(view, np.array(thing.box_m.center_m))
        light[0].mouse.move(x - 3, y)
        light[0].mouse.move(x, y, steps=3)
        light[0].mouse.click(x, y)

        assert picked.get(timeout=60) == ("", thing.id, "me-1")


def test_it_is_dark_for_those_who_wish(opened: Any, view: View) -> None:
    page, _, _ = opened("dark")
    until(lambda: is_drawn(page, view), "boxes of all things", 180)

    assert picture_of(page)[:10, -50:].mean() < 60


def test_on_a_phone_the_sheet_is_hidden_too(browser: Any, port: int) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 700})
    page.goto(f"http://127.0.0.1:{port}/3d/")
    connected = page.get_by_text("Connected", exact=True)
    until(lambda: connected.count() == 1, "a connection")

    assert not connected.is_visible()
    page.close()
