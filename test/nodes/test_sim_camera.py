# SPDX-License-Identifier: Apache-2.0
"""The simulated camera as a process."""

import numpy as np
import pytest
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image

from clip_seg_ros.msg import SegmentedObjectArray
from clip_seg_ros.nodes.camera.conversions import camera_info_to_intrinsics, depth_to_metres, image_to_rgb
from clip_seg_ros.nodes.common.qos import COMPANION_INPUT, RELIABLE
from ros_harness import NodeProcess, wait_until

TOPICS = {
    "color/image_raw": Image,
    "color/camera_info": CameraInfo,
    "depth/image_raw": Image,
    "ground_truth/labels": Image,
    "ground_truth/objects": SegmentedObjectArray,
}


class Listener:
    """The latest message of each topic of a camera, all of one stamp."""

    def __init__(self, node) -> None:
        self._by_stamp = {}
        for topic, kind in TOPICS.items():
            qos = RELIABLE if "truth" in topic else COMPANION_INPUT
            node.create_subscription(kind, f"/camera/{topic}", self._keeper(topic), qos)

    def _keeper(self, topic):
        def keep(message):
            stamp = message.header.stamp
            self._by_stamp.setdefault(stamp.sec * 10**9 + stamp.nanosec, {})[topic] = message

        return keep

    def complete_after(self, stamp_ns: int) -> dict:
        def find():
            return [
                messages
                for stamp, messages in list(self._by_stamp.items())
                if stamp > stamp_ns and len(messages) == len(TOPICS)
            ]

        return wait_until(find, "all topics of one image")[0]


@pytest.fixture(scope="module")
def camera(ros, tmp_path_factory):
    node = NodeProcess(
        "sim_camera",
        tmp_path_factory.mktemp("camera") / "log",
        ["required:=['red cup']", "width:=320", "height:=240", "rate_hz:=5"],
    )
    yield node
    node.end()


@pytest.fixture(scope="module")
def listener(camera, watcher):
    return Listener(watcher)


def set_atomically(watcher, *changes: Parameter):
    request = SetParametersAtomically.Request(parameters=[change.to_parameter_msg() for change in changes])
    return watcher.call(SetParametersAtomically, "/sim_camera/set_parameters_atomically", request).result


def names(messages) -> list[str]:
    return [item.prompt for item in messages["ground_truth/objects"].objects]


def test_topics_agree_with_each_other(listener):
    messages = listener.complete_after(0)
    assert all(m.header.frame_id == "camera_color_optical_frame" for m in messages.values())
    rgb = image_to_rgb(messages["color/image_raw"])
    depth_m = depth_to_metres(messages["depth/image_raw"])
    intrinsics = camera_info_to_intrinsics(messages["color/camera_info"])
    labels = np.frombuffer(messages["ground_truth/labels"].data, np.uint8).reshape(240, 320)
    assert rgb.shape == (240, 320, 3)
    assert depth_m.shape == (240, 320)
    assert (intrinsics.width, intrinsics.height) == (320, 240)
    assert "red cup" in names(messages)
    for item in messages["ground_truth/objects"].objects:
        mask = labels == item.id
        rows, columns = np.nonzero(mask)
        z = depth_m[mask]
        x, y = (columns - intrinsics.cx) * z / intrinsics.fx, (rows - intrinsics.cy) * z / intrinsics.fy
        assert item.area == mask.sum()
        assert item.has_position
        # The position leaves rims and the mixed depths of edges out, which moves the medians a little.
        position = (item.position.x, item.position.y, item.position.z)
        assert position == pytest.approx([np.nanmedian(part) for part in (x, y, z)], abs=0.02), item.prompt


def test_a_red_cup_is_red_where_the_truth_says_so(listener):
    messages = listener.complete_after(0)
    (cup,) = [item for item in messages["ground_truth/objects"].objects if item.prompt == "red cup"][:1]
    labels = np.frombuffer(messages["ground_truth/labels"].data, np.uint8).reshape(240, 320)
    red, green, blue = image_to_rgb(messages["color/image_raw"])[labels == cup.id].mean(axis=0)
    assert red > 2 * max(green, blue)


def test_the_scene_changes_while_it_runs(camera, listener, watcher):
    changes = [
        Parameter("seed", value=12),
        Parameter("required", value=["blue ball"]),
        Parameter("forbidden", value=["red"]),
    ]
    assert set_atomically(watcher, *changes).successful
    changed = names(listener.complete_after(watcher.get_clock().now().nanoseconds))
    assert "blue ball" in changed
    assert not any(name.startswith("red") for name in changed)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [("required", ["giraffe"], "giraffe"), ("seed", -3, "seed"), ("width", 100, "read-only")],
)
def test_changes_that_cannot_be_are_refused(camera, listener, watcher, name, value, reason):
    result = set_atomically(watcher, Parameter(name, value=value))
    assert not result.successful
    assert reason in result.reason
    assert camera.process.poll() is None
