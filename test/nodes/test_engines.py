# SPDX-License-Identifier: Apache-2.0
"""A node that chooses what runs its model."""

from __future__ import annotations

import importlib.util
import os
import re

import pytest
from sensor_msgs.msg import Image

from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.runtime.optional_packages import ONEDNN_LIMIT
from ros_harness import Camera, pixels_of, running_referring, wait_until

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None or ONEDNN_LIMIT in os.environ,
    reason="OpenVINO is not installed, or cannot work here",
)


@needs_openvino
@pytest.mark.parametrize("engine", ["auto", "openvino"])
def test_it_finds_the_cup_whatever_it_chose(ros, log, view, engine):
    asked = [f"engine:={engine}", f"image_topic:=/{engine}/image", "depth_topic:=''"]
    with running_referring(log, f"engine_{engine}", asked) as (node, watcher):
        chosen = re.search(r"clipseg-pocket is run by (\w+) in (\w+) ", node.wait_said("is run by"))
        assert chosen[1] == "openvino" or engine == "auto"
        watcher.say("segment the red cup")
        with Camera(depth=False, topic=f"/{engine}/image") as camera:
            picture = fill_image(Image(), view.rgb, "rgb8")
            wait_until(lambda: camera.send(picture) and watcher.seen["mask"], "a mask")
        assert mask_iou(pixels_of(watcher.seen["mask"][0]) > 0, view.mask_of("red", "cup")) > 0.6
        assert "Traceback" not in node.said()
