# SPDX-License-Identifier: Apache-2.0
"""The ``semantic`` node with a detector: objects of one class that touch in the image are told apart."""

from __future__ import annotations

import cv2
import numpy as np
from sensor_msgs.msg import Image

from clip_seg_ros import resources
from clip_seg_ros.data.rendered_instances import view_instances
from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.evaluation.metrics.touching import touching_objects
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import KINDS, sample_scene
from ros_harness import Camera, NodeProcess, SemanticWatcher, pixels_of

NAMESPACE = "objects"
TOPIC = f"/{NAMESPACE}/image"
TWO_CUPS_TOUCH = 900_012


def test_cups_that_touch_are_two_objects(ros, tmp_path):
    with SceneRenderer() as renderer:
        view = renderer.render(sample_scene(TWO_CUPS_TOUCH, alike=True))
    truth = view_instances(view, "two cups")
    cups = [mask for mask, label in zip(truth.masks, truth.labels, strict=True) if KINDS[label] == "cup"]
    assert len(cups) == 2
    assert touching_objects(truth)[truth.labels == KINDS.index("cup")].all()
    watcher = SemanticWatcher(NAMESPACE)
    node = NodeProcess(
        "semantic",
        tmp_path / "log",
        ["model:=denseclip-instances-pocket", f"image_topic:={TOPIC}"],
        [resources.config_dir() / "semantic.yaml"],
        NAMESPACE,
    )
    try:
        node.wait_said("commands:")
        watcher.wait_for_node()
        with Camera(depth=False, topic=TOPIC) as camera:
            stamp = camera.send(fill_image(Image(), view.rgb, "rgb8"))
            objects = watcher.of_stamp("semantic/objects", stamp).objects
            message = watcher.of_stamp("semantic/instances", stamp)
    finally:
        watcher.close()
        assert node.end() == 0, node.said()

    found = [item for item in objects if item.prompt == "cup"]
    assert len(found) == 2
    assert len({item.id for item in objects}) == len(objects)
    boxes = sorted((item.x_min, item.y_min, item.x_max, item.y_max) for item in found)
    for box, true in zip(boxes, sorted(_box_of(cup) for cup in cups), strict=True):
        np.testing.assert_allclose(box, true, atol=12)

    ids = pixels_of(message)
    assert (message.encoding, message.header.frame_id) == ("mono8", "camera_color_optical_frame")
    assert set(np.unique(ids)) - {0} == {item.id for item in objects}
    by_place = sorted(found, key=lambda item: item.x_min)
    for item, true in zip(by_place, sorted(cups, key=lambda mask: _box_of(mask)[0]), strict=True):
        assert mask_iou(ids == item.id, true) > 0.8
    one, other = (ids == item.id for item in found)
    assert (_grown(one) & _grown(other)).any(), "no pixel of another class is between the two"


def _box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _grown(mask: np.ndarray) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
