# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser, over the rendered table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from browsers import opened, say, spot, wait
from clip_seg_ros.viewer.serving import ViewServer
from rendered_source import RenderedSource
from view_client import ViewClient
from viser_client import CAMERA, CLICK, ViserClient

SIZES = {"wide": (1360, 860), "narrow": (390, 844)}


@pytest.fixture(scope="module")
def source() -> RenderedSource:
    return RenderedSource(rate_hz=10.0)


@pytest.fixture(scope="module")
def address(source: RenderedSource) -> Iterator[str]:
    server = ViewServer(source, port=0)
    yield server.start()
    server.stop()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with opened(browser, address) as page:
        yield page


def colors_of(png: bytes) -> np.ndarray:
    return np.unique(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).reshape(-1, 3) // 8, axis=0)


def test_a_command_leads_to_a_mask_and_a_line_in_the_list(page: Any, source: RenderedSource) -> None:
    say(page, "segment the red cup")
    row = page.locator("#things tbody tr", has_text="red cup #")
    row.wait_for()

    assert "accepted" in page.text_content("#answers")
    expected = source.things[next(id for id, thing in source.things.items() if thing.prompt == "red cup")]
    shown = [float(value) for value in row.locator("td").nth(2).inner_text().split(",")]
    assert shown == pytest.approx(expected.position_m, abs=0.001)
    wait(page, "document.getElementById('canvas').ariaLabel.includes('red cup')")
    wait(page, "document.getElementById('rates').textContent.includes('pictures a second')")


def test_what_else_is_known_of_a_picture_is_said_below_it(page: Any, source: RenderedSource) -> None:
    assert page.locator("#notes").is_hidden()
    source.notes = {"name": "table.jpg", "position": "2 of 7", "relations": ["red cup: left of blue box"], "model": "m"}
    wait(page, lambda: page.locator("#notes").is_visible())
    assert page.inner_text("#notes") == "table.jpg · 2 of 7 · red cup: left of blue box · answered by m"
    source.notes = {"caution": "not for real pictures"}
    wait(page, "document.getElementById('notes').textContent === 'not for real pictures'")
    source.notes = {}
    page.wait_for_selector("#notes", state="hidden")


def test_the_picture_keeps_its_shape(page: Any) -> None:
    for width, height in SIZES.values():
        page.set_viewport_size({"width": width, "height": height})
        frame = page.locator("#canvas").bounding_box()
        assert frame["width"] / frame["height"] == pytest.approx(640 / 480, rel=0.01)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_list_of_things_stays_in_its_panel(page: Any) -> None:
    say(page, "segment the blue box")
    page.locator("#things tbody tr", has_text="blue box #").wait_for()
    page.evaluate(
        "document.getElementById('frame').textContent = '(x, y, z in m, front_left_camera_color_optical_frame)'"
    )
    for width, height in SIZES.values():
        page.set_viewport_size({"width": width, "height": height})
        assert (
            page.evaluate("(t => t.offsetWidth - t.parentElement.clientWidth)(document.getElementById('things'))") <= 0
        )


def test_a_click_tells_what_is_there(page: Any, source: RenderedSource) -> None:
    page.click("#canvas", position=spot(page, source.truth.mask_of("blue", "box")))
    page.wait_for_selector("#card:not([hidden])")

    assert page.text_content("#card-title") == "blue box"
    assert page.locator("#marks polygon").count() == 1
    page.keyboard.press("Escape")
    page.wait_for_selector("#card", state="hidden")


def test_a_click_beside_everything_says_so(page: Any) -> None:
    page.click("#canvas", position={"x": 5, "y": 5})
    wait(page, "document.getElementById('status').textContent.includes('only the table')")


def test_a_box_is_drawn_and_taught(page: Any, source: RenderedSource) -> None:
    x_min, y_min, x_max, y_max = source.things[int(source.truth.labels[source.truth.mask_of("red", "cup")][0])].box_px
    frame = page.locator("#canvas").bounding_box()
    scale = frame["width"] / 640
    page.mouse.move(frame["x"] + x_min * scale, frame["y"] + y_min * scale)
    page.mouse.down()
    page.mouse.move(frame["x"] + x_max * scale, frame["y"] + y_max * scale, steps=3)
    page.mouse.up()
    wait(page, "document.getElementById('card-title').textContent === 'red cup'")

    page.fill("#teach-name", "my mug")
    page.click("#teach button[type=submit]")
    wait(page, "document.getElementById('status').textContent.includes('taught')")
    assert "my mug" in source.taught


def test_a_thing_of_the_list_is_pointed_at_with_the_keyboard_alone(page: Any) -> None:
    say(page, "segment the blue box")
    page.locator("#things button", has_text="blue box").focus()
    page.keyboard.press("Enter")
    wait(page, "document.getElementById('card-title').textContent === 'blue box'")


def numbers(page: Any, selector: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", page.text_content(selector))]


def steer(page: Any, right_px: float, down_px: float, held: str = "") -> None:
    """Moves the cross by so many pixels of the image with the arrow keys, while other keys are held."""
    for ways, far in ((("ArrowLeft", "ArrowRight"), right_px), (("ArrowUp", "ArrowDown"), down_px)):
        steps, rest = divmod(abs(far), 640 / 50)
        for keys, times in ((held, int(steps)), (f"{held}Control+", round(rest))):
            for _ in range(times):
                page.keyboard.press(keys + ways[int(far > 0)])


def test_what_is_in_no_list_is_pointed_at_with_the_keyboard_alone(page: Any, source: RenderedSource) -> None:
    say(page, "stop")
    row, column = np.argwhere(source.truth.mask_of("blue", "box")).mean(axis=0)
    page.focus("#canvas")
    steer(page, column - 320, row - 240)
    wait(page, lambda: numbers(page, "#place") == pytest.approx([column, row], abs=1.5))

    assert page.locator("#cross path").count() == 1
    page.keyboard.press("Enter")
    wait(page, "document.getElementById('card-title').textContent === 'blue box'")


def test_a_box_is_drawn_with_the_keyboard_alone(page: Any, source: RenderedSource) -> None:
    say(page, "segment the red cup")
    page.locator("#things button", has_text="red cup #").wait_for()
    x_min, y_min, x_max, y_max = source.things[int(source.truth.labels[source.truth.mask_of("red", "cup")][0])].box_px
    page.focus("#canvas")
    steer(page, (x_min + x_max) / 2 - 320, (y_min + y_max) / 2 - 240)
    wait(page, "document.getElementById('place').textContent.endsWith(': red cup')")
    steer(page, (x_min - x_max) / 2, (y_min - y_max) / 2)
    steer(page, x_max - x_min, y_max - y_min, "Shift+")
    wait(page, lambda: numbers(page, "#place") == pytest.approx([x_min, y_min, x_max, y_max], abs=3))

    assert page.locator("#cross path").count() == 2
    page.keyboard.press("Enter")
    wait(page, "document.getElementById('card-title').textContent === 'red cup'")
    page.keyboard.press("Escape")
    assert page.locator("#cross path").count() == 1
    page.click("#canvas", position={"x": 5, "y": 5})
    assert page.locator("#cross path").count() == 0


def test_arrow_keys_go_through_what_was_typed(page: Any) -> None:
    for text in ("segment the cup", "segment the ball"):
        say(page, text)
    page.press("#command", "ArrowUp")
    page.press("#command", "ArrowUp")
    assert page.input_value("#command") == "segment the cup"
    page.press("#command", "ArrowDown")
    assert page.input_value("#command") == "segment the ball"


def test_suggestions_are_taken_with_tab(page: Any) -> None:
    say(page, "segment the blue box")
    page.keyboard.type("find the bl")
    page.wait_for_selector("#suggestions li")
    page.press("#command", "Tab")
    assert page.input_value("#command") == "find the blue box"


def test_a_slider_changes_a_parameter_and_what_is_wrong_is_said(page: Any, source: RenderedSource) -> None:
    page.click("#settings summary")
    slider = page.locator("#parameters input[name=smoothing]")
    slider.fill("0.3")
    wait(page, "document.querySelector('#parameters input[name=smoothing]').value === '0.3'")
    page.locator("#parameters input[name=max_points]").fill("-5")
    page.keyboard.press("Enter")
    page.wait_for_selector("#parameters .why:not(:empty)")

    assert source.values["smoothing"] == 0.3
    assert source.values["max_points"] > 0
    assert "max_points" in page.locator("#parameters .why:not(:empty)").inner_text()


def test_what_a_setting_does_can_be_read_and_heard(page: Any) -> None:
    page.click("#settings summary")
    field = page.locator("#parameters .parameter", has=page.locator("input[name=smoothing]"))
    field.locator("summary").click()
    text = field.locator("details p")
    assert text.is_visible()
    described = page.get_attribute("#parameters input[name=smoothing]", "aria-describedby")
    assert described == text.get_attribute("id")
    assert text.inner_text().startswith("How much of the past a mask keeps")


def test_what_somebody_else_changes_moves_the_slider(page: Any, source: RenderedSource) -> None:
    page.click("#settings summary")
    page.wait_for_selector("#parameters input[name=hysteresis]")
    source.set_parameter("hysteresis", 0.2)
    wait(page, "document.querySelector('#parameters input[name=hysteresis]').value === '0.2'")


def test_a_model_is_shown_with_its_licence_and_used(page: Any, source: RenderedSource) -> None:
    page.click("#model summary")
    page.wait_for_selector("#models option[value='cris-r50']", state="attached")
    page.select_option("#models", "cris-r50")
    assert page.text_content("#model-about") == "MIT · 603 MB · is downloaded when it is used"
    page.click("#use button[type=submit]")
    wait(page, "document.getElementById('answers').textContent.includes('use cris-r50')")


def test_nothing_is_wanted_while_nobody_looks(page: Any, source: RenderedSource) -> None:
    page.click("[data-layer=confidence]")
    wait(page, "document.getElementById('save').href.includes('confidence')")
    wait(page, lambda: source.wanted.confidence)
    page.goto("about:blank")
    wait(page, lambda: not source.wanted.cameras)


def test_a_pause_holds_the_picture_and_a_step_moves_it(page: Any, source: RenderedSource) -> None:
    page.click("#pause")
    wait(page, "!document.getElementById('step').disabled")
    page.click("#step")
    page.click("#pause")
    wait(page, lambda: source.played[-3:] == ["pause", "step", "go"])


def test_pictures_and_recordings_are_saved(page: Any, tmp_path: Path) -> None:
    with page.expect_download() as saved:
        page.click("#save")
    assert re.search(r"&viewer=[A-Za-z0-9-]{20}", page.get_attribute("#save", "href"))
    saved.value.save_as(tmp_path / "picture.jpg")
    with page.expect_download() as recorded:
        page.click("#record")
    recorded.value.save_as(tmp_path / "bag" / "recording.mcap")

    assert cv2.imread(str(tmp_path / "picture.jpg")).shape == (480, 640, 3)
    assert recorded.value.suggested_filename.endswith(".mcap")
    assert (tmp_path / "bag" / "recording.mcap").read_bytes().startswith(b"\x89MCAP0\r\n")


def test_the_view_in_3d_opens_and_is_loaded_only_then(page: Any, source: RenderedSource) -> None:
    assert page.locator("#space iframe").count() == 0
    say(page, "segment the red cup, blue box")
    page.click("[data-stage=both]")
    frame = page.frame_locator("#space iframe")
    frame.locator("canvas").first.wait_for()
    wait(page, lambda: source.wanted.space)
    # Letters and boxes of several colours are drawn on a plain ground.
    wait(page, lambda: len(colors_of(page.locator("#space").screenshot())) > 50)

    page.click("[data-stage=picture]")
    wait(page, lambda: not source.wanted.space)


def test_a_click_in_3d_shows_the_thing_to_whoever_clicked(page: Any, browser: Any, address: str) -> None:
    say(page, "segment the blue box")
    page.locator("#things tbody tr", has_text="blue box #").wait_for()
    viewer = re.search(r"viewer=([A-Za-z0-9-]+)", page.get_attribute("#save", "href"))[1]
    sockets = address.replace("http", "ws")
    # Somebody else wants the scene, so that no browser has to draw it, which takes minutes on a slow processor.
    with (
        opened(browser, address) as other,
        ViewClient(f"{sockets}view") as wants,
        ViserClient(f"{sockets}3d/{viewer}") as space,
    ):
        wants.look(space=True)
        label = space.until(
            lambda nodes: next((n for n, node in nodes.items() if node.get("text", "").startswith("blue box")), ""),
            "the blue box",
        )
        space.send(CAMERA)
        space.send({**CLICK, "name": label.replace("label", "body")})
        page.wait_for_selector("#card:not([hidden])")
        assert page.text_content("#card-title") == "blue box"
        # Whatever is told to all comes after a click that was told to all.
        say(other, "segment the red cup")
        other.locator("#things tbody tr", has_text="red cup #").wait_for()
        assert other.locator("#card").is_hidden()


def test_a_source_that_is_gone_is_said_and_comes_back(page: Any, source: RenderedSource) -> None:
    source.listener.tell({"event": "gone", "message": "no node answers in /clip_seg"})
    wait(page, "document.getElementById('banner').textContent === 'no node answers in /clip_seg'")
    source.listener.tell({"event": "back", "message": ""})
    page.wait_for_selector("#banner", state="hidden")
    page.wait_for_selector("#waiting", state="hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_follow_the_system_and_the_button(page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    light = "getComputedStyle(document.body).backgroundColor"
    was = page.evaluate(light)
    assert (sum(map(int, re.findall(r"\d+", was))) < 300) == (scheme == "dark")
    page.click("#theme")  # light
    assert sum(map(int, re.findall(r"\d+", page.evaluate(light)))) > 600
    page.click("#theme")  # dark
    assert sum(map(int, re.findall(r"\d+", page.evaluate(light)))) < 300


def test_every_control_has_a_name(page: Any) -> None:
    page.click("#settings summary")
    page.wait_for_selector("#parameters input")
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, a.button, input, select, canvas')]
        .filter(each => !(each.textContent || each.ariaLabel || each.labels?.[0]?.textContent || '').trim())
        .map(each => each.outerHTML)""")

    assert nameless == []
