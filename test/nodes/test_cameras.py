# SPDX-License-Identifier: Apache-2.0
"""A ``referring`` node with two cameras, and one whose images come compressed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage

from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.zoo.caution import CORNER
from ros_harness import NodeProcess, Talker, Watcher, messages_of, pixels_of, running_referring, stamp_ns, wait_until

SIDES = ("left", "right")
OUTCOMES = (CommandStatus.FOUND, CommandStatus.NOT_FOUND, CommandStatus.FAILED)


def topics_of(name: str) -> str:
    return f"['/left/{name}','/right/{name}']"


@pytest.fixture(scope="module")
def two_cameras(ros: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeProcess, Watcher]]:
    parameters = [
        f"image_topics:={topics_of('color/image_raw')}",
        f"depth_topics:={topics_of('depth/image_raw')}",
        f"camera_info_topics:={topics_of('color/camera_info')}",
        "smoothing:=0.0",
    ]
    with running_referring(tmp_path_factory.mktemp("two") / "log", "two", parameters, SIDES) as both:
        yield both


@pytest.fixture
def both(two_cameras: tuple[NodeProcess, Watcher]) -> Watcher:
    """What watches the two cameras' node, which looks for nothing yet."""
    node, watcher = two_cameras
    assert node.process.poll() is None, node.said()
    watcher.say("stop")
    for messages in watcher.seen.values():
        messages.clear()
    return watcher


def outcomes(watcher: Watcher, command_id: int) -> list[CommandStatus]:
    return [status for status in watcher.statuses(command_id) if status.state in OUTCOMES]


def show(watcher: Watcher, **views) -> dict[str, int]:
    """Lets each camera see its view and waits for the answers; returns the stamps."""
    with Talker.camera("/left") as left, Talker.camera("/right") as right:
        cameras = {"left": left, "right": right}
        stamps = {side: cameras[side].send_view(view, f"{side}_frame") for side, view in views.items()}
        for side, stamp in stamps.items():
            for name in ("mask", "objects", "points"):
                watcher.of_stamp(f"{side}/{name}", stamp)
    return stamps


def test_each_camera_has_its_own_outputs(both, view, cups):
    status = both.say("segment the green ball and the blue cup")
    stamps = show(both, left=view, right=cups)
    truths = {"left": view.mask_of("green", "ball"), "right": cups.mask_of("blue", "cup")}
    for side, phrase in (("left", "green ball"), ("right", "blue cup")):
        objects = both.of_stamp(f"{side}/objects", stamps[side])
        mask = both.of_stamp(f"{side}/mask", stamps[side])
        assert objects.camera == side
        assert [item.prompt for item in objects.objects] == [phrase]
        assert mask_iou(pixels_of(mask) > 0, truths[side]) > 0.6
        assert objects.header.frame_id == mask.header.frame_id == f"{side}_frame" == objects.position_frame
        assert all(message.header.frame_id == f"{side}_frame" for message in both.seen[f"{side}/points"])
    assert len(outcomes(both, status.command_id)) == 1


def test_each_camera_uses_its_own_depth(both, view):
    """The right one measures twice the depth."""
    far = replace(view, depth_m=view.depth_m * 2)
    both.say("segment the red cup")
    stamps = show(both, left=view, right=far)
    near_m, far_m = (both.of_stamp(f"{side}/objects", stamps[side]).objects[0].position for side in SIDES)
    assert [far_m.x, far_m.y, far_m.z] == pytest.approx([2 * near_m.x, 2 * near_m.y, 2 * near_m.z], rel=1e-3)


@pytest.mark.parametrize("first", SIDES)
def test_what_one_camera_shows_is_found_once(both, view, cups, first):
    status = both.say("segment the green ball")  # only in ``view``
    second = SIDES[1 - SIDES.index(first)]
    show(both, **{first: cups})
    assert not outcomes(both, status.command_id), "the other camera may show it"
    stamps = show(both, **{second: view})
    (outcome,) = wait_until(lambda: outcomes(both, status.command_id), "the outcome")
    assert outcome.state == CommandStatus.FOUND
    assert outcome.message.endswith(f"({second}); {CORNER}"), "nobody chose the model"
    assert stamp_ns(outcome) == stamps[second]
    assert outcome.header.frame_id == f"{second}_frame"
    show(both, left=cups, right=view)
    assert len(outcomes(both, status.command_id)) == 1


def test_what_different_cameras_show_is_all_found(both, view, cups):
    """The left one shows the ball and the right one the cup; neither shows both."""
    status = both.say("segment the green ball and the blue cup")
    show(both, left=view)
    assert not outcomes(both, status.command_id), "the other camera may show the rest"
    show(both, right=cups)
    (outcome,) = wait_until(lambda: outcomes(both, status.command_id), "the outcome")
    assert outcome.state == CommandStatus.FOUND
    assert list(outcome.found) == ["green ball", "blue cup"]
    ball, cup, corner = outcome.message.split("; ")
    assert corner == CORNER
    assert ball.startswith("green ball: 1 found")
    assert ball.endswith("(left)")
    assert cup.startswith("blue cup: 1 found")
    assert cup.endswith("(right)")


def test_what_no_camera_shows_is_told_once(both, view, cups):
    status = both.say("segment the purple book")
    show(both, left=view, right=cups)
    (outcome,) = wait_until(lambda: outcomes(both, status.command_id), "the outcome")
    assert outcome.state == CommandStatus.NOT_FOUND
    assert "purple book: not found" in outcome.message
    show(both, left=view, right=cups)
    assert len(outcomes(both, status.command_id)) == 1


def test_a_camera_that_sends_nothing_is_not_waited_for(both, view):
    status = both.say("segment the purple book")
    with Talker.camera("/left") as left:

        def told() -> list[CommandStatus]:
            left.send_view(view)
            time.sleep(0.3)
            return outcomes(both, status.command_id)

        (outcome,) = wait_until(told, "the outcome")
    assert outcome.state == CommandStatus.NOT_FOUND


def test_a_fast_camera_does_not_starve_a_slow_one(both, view):
    """The left one sends three times as often; where there is not time for all images, each gets its share."""
    both.say("segment the red cup")
    sent = dict.fromkeys(SIDES, 0)
    with Talker.camera("/left", depth=False) as left, Talker.camera("/right", depth=False) as right:

        def enough() -> bool:
            for name, camera in (("left", left), ("left", left), ("right", right), ("left", left)):
                camera.send_view(view)
                sent[name] += 1
                time.sleep(0.03)
            return sum(len(both.seen[f"{side}/mask"]) for side in SIDES) >= 16

        wait_until(enough, "16 answers")
    answered = {side: len(both.seen[f"{side}/mask"]) for side in SIDES}
    for side in SIDES:
        other = SIDES[1 - SIDES.index(side)]
        assert answered[side] >= min(0.7 * answered[other], 0.7 * sent[side]), f"{answered} of {sent}"


def test_one_camera_of_two_may_have_no_depth(ros, log, view):
    parameters = [
        f"image_topics:={topics_of('color/image_raw')}",
        "depth_topics:=['','/right/depth/image_raw']",
        "camera_info_topics:=['','/right/color/camera_info']",
        "initial_command:='segment the red cup'",
    ]
    with running_referring(log, "half", parameters, SIDES) as (node, watcher):
        with Talker.camera("/left", depth=False) as left, Talker.camera("/right") as right:
            stamps = {"left": left.send_view(view), "right": right.send_view(view)}
            seen = {side: watcher.of_stamp(f"{side}/objects", stamp).objects for side, stamp in stamps.items()}
        assert seen["left"]
        assert not any(item.has_position for item in seen["left"])
        assert seen["right"]
        assert all(item.has_position for item in seen["right"])
        said = node.said()
        assert said.index("looking for red cup") < said.index("images: "), "the command comes before any image"


# Compressed images.


@pytest.fixture(scope="module")
def compressed(ros: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeProcess, Watcher]]:
    parameters = [
        "image_transport:=compressed",
        "image_topic:=/jpeg/color/image_raw",
        "depth_topic:=/jpeg/depth/image_raw",
        "camera_info_topic:=/jpeg/color/camera_info",
        "initial_command:='segment the red cup'",
        "smoothing:=0.0",
    ]
    with running_referring(tmp_path_factory.mktemp("jpeg") / "log", "jpeg", parameters) as both:
        assert "images: /jpeg/color/image_raw/compressed" in both[0].said()
        yield both


def jpeg_of(view) -> CompressedImage:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(view.rgb, cv2.COLOR_RGB2BGR))
    return CompressedImage(format="rgb8; jpeg compressed bgr8", data=data.tobytes())


def test_compressed_images_are_answered_with_positions(compressed, view):
    _node, watcher = compressed
    messages = messages_of(view) | {"color": jpeg_of(view)}
    with Talker.camera("/jpeg", compressed=True) as camera:

        def answered() -> bool:
            camera.send("jpeg_frame", **messages)
            time.sleep(0.1)
            return watcher.seen["objects"] and watcher.seen["mask"]

        wait_until(answered, "the answer")
        mask, objects = watcher.seen["mask"][0], watcher.seen["objects"][0]
    assert mask_iou(pixels_of(mask) > 0, view.mask_of("red", "cup")) > 0.6
    assert mask.header.frame_id == "jpeg_frame"
    assert objects.objects[0].has_position
    assert np.isfinite(objects.objects[0].position.z)


def test_damaged_images_are_warned_about_once(compressed, view):
    node, watcher = compressed
    warning = "are truncated or broken"
    cut = jpeg_of(view)
    cut.data = cut.data[: len(cut.data) // 2]
    before = node.said().count(warning)
    with Talker.camera("/jpeg", depth=False, compressed=True) as camera:

        def warned() -> bool:
            camera.send(color=cut)
            time.sleep(0.1)
            return node.said().count(warning) > before

        wait_until(warned, "the warning")
        camera.send(color=cut)
        time.sleep(0.2)
        watcher.of_stamp("mask", camera.send(color=jpeg_of(view)))
    assert node.said().count(warning) == before + 1
