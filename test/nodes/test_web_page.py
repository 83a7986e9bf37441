# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser, over a real node and its camera."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browsers import chromium, opened, say, spot, wait
from clip_seg_ros.sim.renderer import RenderedView
from ros_harness import NodeProcess, Talker
from viewed_robot import Playing, rendered_views, topics_of, true_position

pytest.importorskip("viser", reason="the page is served with viser")
NAMESPACE = "paged"
NEAR_M = 0.01


@dataclass
class Shown:
    """A node, its camera, and the page that shows them."""

    folder: Path
    page: Any
    truth: RenderedView
    node: NodeProcess

    def start_node(self) -> None:
        self.node = start_node(self.folder / "again")


def start_node(log: Path) -> NodeProcess:
    node = NodeProcess("referring", log, [*topics_of(NAMESPACE), "smoothing:=0.0"], namespace=NAMESPACE)
    node.wait_said("commands:")
    return node


def address_of(web: NodeProcess) -> str:
    return re.search(r"http://\S+", web.wait_said("the view in the browser: "))[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def shown(ros: None, browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder, truth = tmp_path_factory.mktemp("paged"), rendered_views()[0]
    node = start_node(folder / "node")
    web = NodeProcess("web_view", folder / "web", ["port:=0"], namespace=NAMESPACE)
    with Talker.camera(f"/{NAMESPACE}") as camera, Playing(camera, [truth]):
        with opened(browser, address_of(web)) as page:
            yield (shown := Shown(folder, page, truth, node))
        assert shown.node.end() == 0
        assert web.end() == 0
    assert "Traceback" not in web.said()


def test_a_typed_command_leads_to_a_mask(shown: Shown) -> None:
    say(shown.page, "segment the red cup")
    row = shown.page.locator("#things tr", has_text="red cup #")
    row.wait_for()

    place = [float(value) for value in row.locator("td").nth(2).inner_text().split(",")]
    assert place == pytest.approx(true_position(shown.truth, "red cup"), abs=NEAR_M)
    wait(shown.page, "document.getElementById('answers').textContent.includes('found: red cup: 1 found')")
    # The picture has the colour of its outline.
    wait(shown.page, lambda: _outlined(shown.page))


def _outlined(page: Any) -> bool:
    return page.evaluate("""() => {
        const canvas = document.getElementById('canvas');
        const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        let near = 0;
        for (let i = 0; i < data.length; i += 4)
            near += Math.abs(data[i] - 86) + Math.abs(data[i + 1] - 180) + Math.abs(data[i + 2] - 233) < 60;
        return near > 50;
    }""")


def test_a_click_on_the_box_gives_its_name_and_its_position(shown: Shown) -> None:
    shown.page.click("#canvas", position=spot(shown.page, shown.truth.mask_of("blue", "box")))
    wait(shown.page, "document.getElementById('card-title').textContent === 'blue box'")
    text = shown.page.text_content("#card-text")
    place = [float(value) for value in re.search(r"at \(([^)]*)\) m", text)[1].split(",")]
    assert np.linalg.norm(place - true_position(shown.truth, "blue box")) < NEAR_M


def test_what_is_taught_by_a_click_is_segmented_by_its_name(shown: Shown) -> None:
    page, mask = shown.page, shown.truth.mask_of("blue", "box")
    page.click("#canvas", position=spot(page, mask))
    page.wait_for_selector("#card:not([hidden])")
    page.fill("#teach-name", "treasure")
    page.click("#teach button[type=submit]")
    wait(page, "document.getElementById('status').textContent.startsWith('taught')")
    say(page, "segment the treasure")
    page.locator("#things tr", has_text="treasure #").first.wait_for()


def test_segment_like_this(shown: Shown) -> None:
    page = shown.page
    page.click("#canvas", position=spot(page, shown.truth.mask_of("green", "cup")))
    page.wait_for_selector("#card:not([hidden])")
    page.click("#alike")
    page.locator("#things tr", has_text=re.compile(r"thing \d+ #")).first.wait_for()


def test_a_slider_changes_the_nodes_parameter(shown: Shown) -> None:
    page = shown.page
    page.click("#settings summary")
    page.locator("#parameters input[name=threshold]").fill("0.35")
    page.locator("#parameters input[name=max_points]").fill("1500")
    page.keyboard.press("Enter")
    wait(page, "document.querySelector('#parameters input[name=threshold]').value === '0.35'")
    # Opened again, the settings come from the node.
    page.click("#settings summary")
    page.evaluate("document.getElementById('parameters').replaceChildren()")
    page.click("#settings summary")
    wait(page, "document.querySelector('#parameters input[name=threshold]')?.value === '0.35'")
    # The node may have been told after it was asked; it tells of the change then.
    wait(page, "document.querySelector('#parameters input[name=max_points]').value === '1500'")


def test_a_node_that_is_killed_is_missed_and_met_again(shown: Shown) -> None:
    page = shown.page
    shown.node.end(signal.SIGKILL)
    wait(page, f"document.getElementById('banner').textContent.includes('no node answers in /{NAMESPACE}')")
    say(page, "segment the red cup")
    wait(page, "document.getElementById('status').textContent.includes('no node answers')")

    shown.start_node()
    page.wait_for_selector("#banner", state="hidden")
    page.wait_for_selector("#waiting", state="hidden")
    say(page, "segment the red cup")
    page.locator("#things tr", has_text="red cup #").wait_for()


def test_a_wrong_token_gets_nothing(ros: None, browser: Any, tmp_path: Path) -> None:
    web = NodeProcess("web_view", tmp_path / "web", ["port:=0", "host:=0.0.0.0"], namespace="private")
    try:
        port, token = re.search(r":(\d+)/\?token=(\S+)", address_of(web)).groups()
        page = browser.new_page()
        for query in ("", "?token=wrong"):
            answer = page.goto(f"http://127.0.0.1:{port}/{query}")
            assert answer.status == 401
            assert "This view is private" in page.text_content("body")
            assert page.goto(f"http://127.0.0.1:{port}/page/app.js{query}").status == 401
        page.goto(f"http://127.0.0.1:{port}/?token={token}")
        wait(page, "document.getElementById('title')?.textContent === '/private'")
        wait(page, "document.getElementById('banner').textContent.includes('no node answers in /private')")
        # A picture of the screen does not give it away.
        assert "token" not in page.url
    finally:
        assert web.end() == 0
