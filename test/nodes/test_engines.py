# SPDX-License-Identifier: Apache-2.0
"""A node that chooses what runs its model."""

from __future__ import annotations

import importlib.util
import os
import re

import pytest
from sensor_msgs.msg import Image

from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.runtime.chosen import PROVISIONAL
from clip_seg_ros.runtime.optional_packages import ONEDNN_LIMIT
from ros_harness import Camera, pixels_of, running_referring, wait_until

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None or ONEDNN_LIMIT in os.environ,
    reason="OpenVINO is not installed, or cannot work here",
)


MEASURED_S = 900.0
"""What converts and measures gives way to all others, and on a busy machine it takes long."""


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


@pytest.fixture
def new_machine(tmp_path, monkeypatch):
    """Nothing was ever measured or converted here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def engines_of(node, model):
    """What the log says of the engines of a model, in the order in which they served."""
    return re.findall(rf"{model} is run by (.*)", node.said())


@needs_openvino
def test_a_first_start_answers_before_an_engine_was_chosen(ros, log, view, new_machine):
    asked = ["engine:=auto", "image_topic:=/first/image", "depth_topic:=''"]
    with running_referring(log, "engine_first", asked) as (node, watcher):
        assert PROVISIONAL in engines_of(node, "clipseg-pocket")[0]
        watcher.say("segment the red cup")
        masks = watcher.seen["mask"]
        with Camera(depth=False, topic="/first/image") as camera:
            picture = fill_image(Image(), view.rgb, "rgb8")
            wait_until(lambda: camera.send(picture) and masks, "a mask")
            chosen = wait_until(lambda: engines_of(node, "clipseg-pocket")[1:], "an engine", MEASURED_S)[0]
            assert PROVISIONAL not in chosen
            before = len(masks)
            wait_until(lambda: camera.send(picture) and len(masks) > before, "a mask by it")
        assert mask_iou(pixels_of(masks[-1]) > 0, view.mask_of("red", "cup")) > 0.6


@needs_openvino
def test_a_command_for_another_model_wins_over_the_measuring(ros, log, new_machine):
    asked = ["engine:=auto", "image_topic:=/won/image", "depth_topic:=''"]
    with running_referring(log, "engine_won", asked) as (node, watcher):
        status = watcher.say("use maskclip")
        assert watcher.outcome(status.command_id, MEASURED_S).state == CommandStatus.DONE
        wait_until(lambda: engines_of(node, "maskclip-pocket")[1:], "its engine", MEASURED_S)
        assert len(engines_of(node, "clipseg-pocket")) <= 2
        assert watcher.say("segment the red cup").message.startswith("looking for red cup")
        assert watcher.get_text("referring", "model") == "maskclip-pocket"
