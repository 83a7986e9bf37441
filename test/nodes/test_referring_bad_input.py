# SPDX-License-Identifier: Apache-2.0
"""Bad input is answered by a status or one warning, and the node lives on."""

import array
import signal
import time

import pytest
from builtin_interfaces.msg import Time as Stamp
from sensor_msgs.msg import CameraInfo, Image

from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.common.faults import FIRST_REST_S
from clip_seg_ros.nodes.life.command_router import example_command
from ros_harness import Camera, NodeProcess, wait_until

FRAMES = 6


def good_image() -> Image:
    return Image(height=48, width=64, encoding="rgb8", step=192, data=array.array("B", bytes(48 * 192)))


def changed(**fields) -> Image:
    message = good_image()
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def send_often(camera: Camera, *messages) -> None:
    for _ in range(FRAMES):
        camera.send(*messages)
        time.sleep(0.05)


def send_until_said(camera: Camera, node: NodeProcess, warning: str, count: int, *messages) -> None:
    # A busy node drops images, so that a fixed number might never be looked at.
    def said() -> bool:
        camera.send(*messages)
        time.sleep(0.05)
        return node.said().count(warning) >= count

    wait_until(said, f"warning {count}: {warning}")


def wait_worked_on(watcher, camera, *messages) -> None:
    """Sends good images until one was answered, which shows that the node lives and has seen what came before."""
    start = camera.send(*messages)

    def answered() -> bool:
        camera.send(*messages)
        time.sleep(0.1)
        return any(m.header.stamp.sec * 10**9 + m.header.stamp.nanosec > start for m in watcher.seen["mask"][-3:])

    wait_until(answered, "the node to work on a good image")


def test_images_before_any_command(ros, watcher, log):
    node = NodeProcess("referring", log, ["command_topic:=/nobody", "image_topic:=/camera/color/image_raw"])
    try:
        node.wait_said("commands:")
        with Camera(depth=False) as camera:

            def said() -> bool:
                # The shared node hears the camera, too, and may know it earlier.
                send_often(camera, good_image())
                return "nothing says what to look for" in node.said()

            wait_until(said, "the node to say that there is no command")
            send_often(camera, good_image())
        said = node.said()
        assert said.count("nothing says what to look for") == 1
        assert example_command("/clip_seg", "/nobody") in said
        assert node.process.poll() is None
        assert node.end(signal.SIGTERM) == 0
        assert "Traceback" not in node.said()
    finally:
        node.end(signal.SIGKILL)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "empty"), ("  \n ", "empty"), ("x" * 10_000, "10000"), ("find", "find"), ("find a\x07b", "U+")],
)
def test_bad_commands_are_rejected_with_a_reason(referring, watcher, text, words):
    status = watcher.say(text)
    assert status.state == CommandStatus.REJECTED
    assert words in status.message
    assert len(status.command) <= 200
    assert watcher.say("segment the red cup").state == CommandStatus.ACCEPTED


@pytest.mark.parametrize(
    ("bad", "warning"),
    [
        (changed(encoding="32FC3"), "unknown encoding '32FC3'; accepted: rgb8, bgr8, rgba8, bgra8, mono8"),
        (changed(height=0, width=0, step=0, data=array.array("B")), "the image is empty: 0x0 pixels"),
        (changed(data=array.array("B", bytes(100))), "the data is truncated: 48 rows of 192 bytes need 9216 bytes"),
        (changed(step=190), "step says 190"),
    ],
    ids=["encoding", "empty", "truncated", "step"],
)
def test_bad_images_are_warned_about_once(referring, watcher, bad, warning):
    watcher.say("segment the red cup")
    before = referring.said().count(warning)
    with Camera(depth=False) as camera:
        # After good images for a while it is worth a second line.
        for count in (before + 1, before + 2):
            send_until_said(camera, referring, warning, count, bad)
            send_often(camera, bad)
            wait_worked_on(watcher, camera, good_image())
            assert referring.said().count(warning) == count
            time.sleep(FIRST_REST_S)
    assert "Traceback" not in referring.said()


def test_an_image_from_before_time_began_is_warned_about(referring, watcher):
    watcher.say("segment the red cup")
    with Camera(depth=False) as camera:
        for _ in range(FRAMES):
            camera.send(good_image(), stamp=Stamp(sec=-5))
        warning = "input: a message cannot be taken: ValueError"
        referring.wait_said(warning)
        wait_worked_on(watcher, camera, good_image())
    assert referring.said().count(warning) == 1
    assert "Traceback" not in referring.said()


def depth_image(**fields) -> Image:
    message = Image(height=48, width=64, encoding="16UC1", step=128, data=array.array("B", b"\x00\x04" * (48 * 64)))
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def camera_info(**fields) -> CameraInfo:
    return CameraInfo(**({"height": 48, "width": 64, "k": [50.0, 0, 31.5, 0, 50.0, 23.5, 0, 0, 1.0]} | fields))


@pytest.mark.parametrize(
    ("depth", "info", "warning"),
    [
        (depth_image(encoding="16SC1"), camera_info(), "unknown encoding '16SC1'; accepted: 16UC1, 32FC1"),
        (depth_image(data=array.array("B", bytes(10))), camera_info(), "the data is truncated: 48 rows of 128 bytes"),
        (depth_image(height=24), camera_info(), "the depth image is 64x24, the colour image 64x48"),
        (depth_image(), camera_info(width=320), "camera_info is 320x48, the colour image 64x48"),
        (depth_image(), camera_info(k=[0.0] * 9), "focal lengths must be positive"),
    ],
    ids=["encoding", "truncated", "size", "info size", "uncalibrated"],
)
def test_bad_depth_costs_the_positions_only(referring, watcher, depth, info, warning):
    before = referring.said().count(warning)
    assert watcher.say("segment the red cup").state == CommandStatus.ACCEPTED
    with Camera() as camera:
        send_often(camera, good_image(), depth, info)
        wait_worked_on(watcher, camera, good_image(), depth, info)
        assert referring.said().count(warning) == before + 1
        # Ends the fault, so that the next test begins without it.
        wait_worked_on(watcher, camera, good_image(), depth_image(), camera_info())
