# SPDX-License-Identifier: Apache-2.0
"""A real browser, where Chromium is installed, and how to wait for what its pages show."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# WebGL without a GPU.
SOFTWARE_GL = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
PATIENCE_MS = 120_000
_HERE = re.compile(r"(http|ws)://(127\.0\.0\.1|localhost):\d+/|blob:|data:|about:")


@contextmanager
def chromium() -> Iterator[Any]:
    """Chromium, which can draw without a GPU; skips the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright drives the browser")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE_GL)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, address: str, size: tuple[int, int] = (1360, 860)) -> Iterator[Any]:
    """The viewer's page with a picture on it; nothing that it does may fail or leave this machine."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    context.set_default_timeout(PATIENCE_MS)
    faults: list[str] = []
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.goto(address)
    page.wait_for_selector("#waiting", state="hidden")
    yield page
    context.close()
    assert faults == []
    assert asked
    assert [url for url in asked if not _HERE.match(url)] == []


def wait(page: Any, condition: str | Callable[[], Any]) -> None:
    """Waits until an expression of JavaScript, or a function here, is true. (Playwright's own way is eval in the page,
    which the page forbids.)"""
    deadline_s = time.monotonic() + PATIENCE_MS / 1e3
    while not (page.evaluate(condition) if isinstance(condition, str) else condition()):
        assert time.monotonic() < deadline_s, f"waited in vain for {condition}"
        page.wait_for_timeout(20)


def say(page: Any, text: str) -> None:
    """Gives a command."""
    page.fill("#command", text)
    page.press("#command", "Enter")


def spot(page: Any, mask: np.ndarray) -> dict[str, float]:
    """Where the innermost pixel of an (H, W) bool mask of the image lies on the canvas."""
    frame = page.locator("#canvas").bounding_box()
    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    row, column = np.unravel_index(np.argmax(depth), mask.shape)
    return {"x": (column + 0.5) * frame["width"] / mask.shape[1], "y": (row + 0.5) * frame["height"] / mask.shape[0]}
