# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of ``docs/review.md``: python docs/tools/draw_review.py

They are pictures of the page in Chromium, over a small run on rendered tables.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from playwright.sync_api import Browser, sync_playwright

sys.path.append(str(Path(__file__).parents[2] / "test" / "support"))

from clip_seg_ros.annotation.review import Review
from clip_seg_ros.viewer.review_pointing import MaskMaker
from clip_seg_ros.viewer.review_serving import ReviewServer
from reviewed_run import write_run

FOLDER = Path(__file__).parents[1] / "images" / "review"
QUALITY = 85
PHRASES = ("red cup", "blue box", "green bottle", "yellow bowl", "spoon")
SHOTS = {"wide": (1440, 900, "light"), "narrow": (390, 844, "dark")}


def shoot(browser: Browser, address: str, name: str) -> None:
    """Opens the page, and writes its picture."""
    width, height, scheme = SHOTS[name]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page: Any = context.new_page()
    page.goto(address)
    page.wait_for_selector("#waiting", state="hidden")
    page.fill("#by", "Anna")
    page.wait_for_load_state("networkidle")
    page.evaluate("scrollTo(0, 0)")
    picture = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    cv2.imwrite(str(FOLDER / f"{name}.jpg"), picture, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
    context.close()


def main() -> None:
    """Draws all of them."""
    FOLDER.mkdir(exist_ok=True)
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        out = Path(folder) / "kitchen"
        write_run(out, (640, 480), 12, PHRASES)
        review = Review(out)
        server = ReviewServer(review, MaskMaker("clipseg-pocket"))
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        address = server.start()
        for name in SHOTS:
            shoot(browser, address, name)
            print(FOLDER / f"{name}.jpg")
        browser.close()
        server.stop()
        review.close()


if __name__ == "__main__":
    main()
