# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of ``docs/viewer.md``: python docs/tools/draw_viewer.py

They are pictures of the page in Chromium, beside a simulated camera, a node and ``web_view`` that run as processes.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from playwright.sync_api import Browser, sync_playwright

from clip_seg_ros.tools.bench_web import running

FOLDER = Path(__file__).parents[1] / "images" / "viewer"
QUALITY = 85
SPACE_MS = 15_000
"""Until a scene in 3D is drawn without a GPU."""
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]


@dataclass(frozen=True)
class Shot:
    """A picture of the page."""

    name: str
    size: tuple[int, int]
    scheme: str = "light"
    opened: tuple[str, ...] = ()
    """What is clicked before, as CSS selectors."""


SHOTS = (
    Shot("wide", (1440, 900), opened=("[data-stage=both]",)),
    Shot("dark", (1280, 860), "dark", ("#model summary",)),
    Shot("narrow", (390, 844)),
)


def shoot(browser: Browser, address: str, shot: Shot) -> None:
    """Opens the page, asks for two things, points at one of them, and writes the picture."""
    context = browser.new_context(viewport={"width": shot.size[0], "height": shot.size[1]}, color_scheme=shot.scheme)
    page: Any = context.new_page()
    page.goto(address)
    page.wait_for_selector("#waiting", state="hidden")
    page.fill("#command", "segment the red cup, the blue box")
    page.press("#command", "Enter")
    row = page.locator("#things button", has_text="red cup")
    row.first.wait_for()
    for selector in shot.opened:
        page.click(selector)
    row.first.click()
    page.wait_for_selector("#card:not([hidden])")
    page.wait_for_timeout(SPACE_MS)
    for note in page.frames[1:]:
        # What viser says of drawing without a GPU.
        for close in note.locator("[class*=notification], [role=alert]").get_by_role("button").all():
            close.click()
    page.evaluate("scrollTo(0, 0)")
    picture = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    cv2.imwrite(str(FOLDER / f"{shot.name}.jpg"), picture, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
    context.close()


def main() -> None:
    """Draws all of them."""
    FOLDER.mkdir(exist_ok=True)
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as logs, running(Path(logs), 5.0) as robot, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for shot in SHOTS:
            shoot(browser, robot.address, shot)
            print(FOLDER / f"{shot.name}.jpg")
        browser.close()


if __name__ == "__main__":
    main()
