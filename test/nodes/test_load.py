# SPDX-License-Identifier: Apache-2.0
"""A node works only for somebody, and no more than it is allowed to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CompressedImage, Image

from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.camera.conversions import compressed_to_rgb, fill_image
from clip_seg_ros.nodes.common.qos import RELIABLE
from ros_harness import Camera, NodeProcess, Stream, Watcher, pixels_of, wait_until

TOPIC = "/load/image"


class Shy(Watcher):
    """Listens to no output of a camera until it is asked to."""

    OUTPUTS: ClassVar = {"status": CommandStatus}


@contextmanager
def running(name: str, log: Path, *parameters: str) -> Iterator[tuple[Shy, list[DiagnosticArray]]]:
    node = NodeProcess(name, log, [f"image_topic:={TOPIC}", *parameters], namespace="load")
    watcher = Shy("load")
    try:
        heard = watcher.hear(DiagnosticArray, "/diagnostics", 10)
        node.wait_said("commands:")
        watcher.wait_for_node(name)
        yield watcher, heard
        assert node.end() == 0, node.said()
        assert "Traceback" not in node.said(), node.said()
    finally:
        watcher.close()
        node.end()


def camera_status(heard: list[DiagnosticArray], name: str) -> tuple[str, dict[str, str]]:
    """What the node says next of its camera: the message and the values."""

    def found() -> list:
        return [each for array in heard[before:] for each in array.status if each.name == f"load/{name}: camera"]

    before = len(heard)
    # The first of them may have been counted before; its successor tells of a whole second.
    status = wait_until(lambda: found()[1:], "diagnostics")[0]
    return status.message, {pair.key: pair.value for pair in status.values}


def wait_note(heard: list[DiagnosticArray], name: str, note: str) -> dict[str, str]:
    """Waits until the node says this of its camera; returns the values that it says after that."""
    wait_until(lambda: camera_status(heard, name)[0] == note, note)
    return camera_status(heard, name)[1]


def test_referring_answers_a_command_and_then_rests_until_somebody_listens(ros, log, view):
    with (
        running("referring", log, "depth_topic:=''", "smoothing:=0.0") as (watcher, heard),
        Camera(depth=False, topic=TOPIC) as camera,
        Stream(camera, fill_image(Image(), view.rgb, "rgb8")),
    ):
        status = watcher.say("segment the red cup")
        assert watcher.outcome(status.command_id).state == CommandStatus.FOUND, "though nobody listens to its masks"
        assert wait_note(heard, "referring", "nobody listens")["images answered per second"] == "0.0"
        masks = watcher.hear(CompressedImage, "mask/compressed", RELIABLE)
        overlays = watcher.hear(CompressedImage, "overlay/compressed", RELIABLE)
        mask, overlay = wait_until(lambda: masks and overlays and (masks[-1], overlays[-1]), "both pictures")
        assert float(wait_note(heard, "referring", "answering")["images answered per second"]) > 0
        again = watcher.say("segment the blue box")
        assert watcher.outcome(again.command_id).state == CommandStatus.NOT_FOUND
    pixels = cv2.imdecode(np.frombuffer(mask.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(pixels)) == {0, 255}
    assert mask_iou(pixels > 0, view.mask_of("red", "cup")) > 0.6
    assert mask.format == "mono8; png compressed "
    assert mask.header.frame_id == "camera_color_optical_frame"
    assert overlay.format == "rgb8; jpeg compressed bgr8"
    rgb = compressed_to_rgb(overlay)
    assert rgb.shape == view.rgb.shape
    assert len(overlay.data) < rgb.size / 4
    outside = ~view.mask_of("red", "cup")
    outside[:160] = outside[-60:] = False  # where names and the corner's line stand
    assert np.median(np.abs(rgb[outside].astype(int) - view.rgb[outside])) <= 8, "the picture, with the mask over it"


def test_semantic_rests_until_somebody_listens(ros, log, view):
    with (
        running("semantic", log) as (watcher, heard),
        Camera(depth=False, topic=TOPIC) as camera,
        Stream(camera, fill_image(Image(), view.rgb, "rgb8")),
    ):
        assert wait_note(heard, "semantic", "nobody listens")["images answered per second"] == "0.0"
        assert watcher.say("classes: cup, table, floor").state == CommandStatus.ACCEPTED
        confidences = watcher.hear(Image, "semantic/confidence", RELIABLE)
        confidence = wait_until(lambda: confidences and confidences[-1], "the confidence")
        overlays = watcher.hear(CompressedImage, "semantic/overlay/compressed", RELIABLE)
        overlay = wait_until(lambda: overlays and overlays[-1], "the overlay")
    values = pixels_of(confidence, np.float32)
    assert confidence.encoding == "32FC1"
    assert values.shape == view.rgb.shape[:2]
    assert values.min() > 0.0
    assert values.max() <= 1.0 + 1e-5
    assert np.median(values) > 0.3
    assert compressed_to_rgb(overlay).shape == view.rgb.shape


def test_no_more_images_are_answered_than_allowed(ros, log, view):
    with (
        running("referring", log, "depth_topic:=''", "initial_command:='segment the red cup'") as (watcher, _),
        Camera(depth=False, topic=TOPIC) as camera,
        Stream(camera, fill_image(Image(), view.rgb, "rgb8"), 0.05),
    ):
        masks = watcher.hear(Image, "mask", RELIABLE)
        wait_until(lambda: masks, "a mask")
        assert watcher.set_parameter("referring", "max_rate_hz", 1.0).successful
        before, since_s = len(masks), time.monotonic()
        wait_until(lambda: len(masks) >= before + 5, "five masks")
        # Those under way when the limit came, and the first after it, come on top.
        assert len(masks) - before <= time.monotonic() - since_s + 3
        refused = watcher.set_parameter("referring", "max_rate_hz", -1.0)
        assert not refused.successful
        assert "max_rate_hz" in refused.reason
