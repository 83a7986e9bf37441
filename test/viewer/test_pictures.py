# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from clip_seg_ros.pipeline.overlay import PALETTE
from clip_seg_ros.viewer.pictures import Form, Pictures, drawn, width_for
from clip_seg_ros.viewer.views import Thing, View


@pytest.fixture
def view() -> View:
    """A grey image with one thing in the middle, of 200 x 100 pixels of 640 x 480."""
    labels = np.zeros((480, 640), np.uint8)
    labels[200:300, 200:400] = 3
    thing = Thing("red cup", 3, 0.9, (200, 200, 400, 300), (299.5, 249.5), 20_000)
    confidence = np.where(labels > 0, 0.95, 0.05).astype(np.float32)
    rgb = np.full((480, 640, 3), 90, np.uint8)
    return View("", 1, time.monotonic(), rgb, ("red cup",), (thing,), labels, confidence)


def decoded(jpeg: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize("width", [640, 320])
def test_a_thing_is_outlined_where_it_is(view: View, width: int) -> None:
    picture = drawn(view, "overlay", width).astype(int)
    near = np.abs(picture - PALETTE[0]).sum(axis=2) < 60
    scale = width / 640

    _, columns = np.nonzero(near[round(190 * scale) : round(310 * scale)])
    assert columns.min() / scale == pytest.approx(200, abs=8)
    assert columns.max() / scale == pytest.approx(400, abs=8)
    assert np.all(drawn(view, "plain", width) == 90)


def test_pictures_are_never_wider_than_the_image(view: View) -> None:
    assert drawn(view, "overlay", 1920).shape == (480, 640, 3)
    assert drawn(view, "overlay", 320).shape == (240, 320, 3)
    assert drawn(view, "overlay").shape == (480, 640, 3)


def test_confidence_is_brighter_where_it_is_higher(view: View) -> None:
    picture = drawn(view, "confidence", 320).astype(int)

    assert picture[125, 150].sum() > picture[20, 20].sum() + 200
    assert np.array_equal(drawn(replace(view, confidence=None), "confidence"), view.rgb)


def test_what_things_relate_to_is_framed(view: View) -> None:
    anchor = Thing("blue box", 0, 0.9, (500, 100, 600, 150), (550.0, 125.0), 5000)
    without, framed = drawn(view, "overlay"), drawn(replace(view, things=(*view.things, anchor)), "overlay")

    rows, columns = np.nonzero((without != framed).any(axis=2))
    assert columns.min() == pytest.approx(500, abs=1)
    assert columns.max() == pytest.approx(599, abs=1)
    assert rows.min() == pytest.approx(100, abs=1)


def test_a_thing_that_is_too_small_for_the_picture_is_left_out(view: View) -> None:
    labels = np.zeros((480, 640), np.uint8)
    labels[201, 201] = 3
    tiny = replace(view.things[0], box_px=(201, 201, 202, 202))

    assert drawn(replace(view, labels=labels, things=(tiny,)), "overlay", 320).shape == (240, 320, 3)


def test_viewers_of_the_same_size_share_one_picture(view: View) -> None:
    pictures, form = Pictures(), Form("overlay", 320, 80)
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(pictures.jpeg(view, form))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(each is found[0] for each in found)
    assert decoded(found[0]).shape == (240, 320, 3)
    assert pictures.jpeg(view, Form("plain", 320, 80)) is not found[0]


def test_of_each_camera_the_pictures_of_one_view_are_kept(view: View) -> None:
    pictures, other = Pictures(), replace(view, camera="other")
    first = [pictures.jpeg(each, Form("overlay", width, 80)) for each in (view, other) for width in (320, 640)]
    pictures.jpeg(replace(view, stamp_ns=2), Form("overlay", 320, 80))

    again = [pictures.jpeg(other, Form("overlay", width, 80)) for width in (320, 640)]
    assert all(one is two for one, two in zip(first[2:], again, strict=True))
    assert pictures.jpeg(view, Form("overlay", 320, 80)) is not first[0]


def test_another_answer_to_the_same_image_is_drawn_anew(view: View) -> None:
    pictures, form = Pictures(), Form("overlay", 320, 80)

    assert pictures.jpeg(view, form) != pictures.jpeg(replace(view, things=()), form)


def test_what_cannot_be_drawn_raises_for_everybody(view: View) -> None:
    pictures, wrong = Pictures(), replace(view, rgb=np.zeros((0, 0, 3), np.uint8))
    for _ in range(2):
        with pytest.raises((cv2.error, ZeroDivisionError)):
            pictures.jpeg(wrong, Form())


@pytest.mark.parametrize(("wanted", "width"), [(1.0, 320), (320.0, 320), (321.0, 480), (1000.0, 1280), (5000.0, 1920)])
def test_widths(wanted: float, width: int) -> None:
    assert width_for(wanted) == width
