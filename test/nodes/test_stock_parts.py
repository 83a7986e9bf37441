# SPDX-License-Identifier: Apache-2.0
"""Parts of ROS 2 that come with an installation of it alone, tf2 and vision_msgs, and recordings played again."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from builtin_interfaces.msg import Time as Stamp
from rclpy.node import Node
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from clip_seg_ros.nodes.common.qos import RELIABLE
from clip_seg_ros.sim.renderer import SceneRenderer
from from_above import TILT, seen_from_above, with_a_cup_on_the_box
from ros_harness import NodeProcess, Talker, Watcher, messages_of, running_referring, stamp_ns, wait_until

needs_tf2 = pytest.mark.skipif(
    importlib.util.find_spec("tf2_ros") is None, reason="tf2_ros is not here; it comes with a ROS 2 installation only"
)
needs_vision_msgs = pytest.mark.skipif(
    importlib.util.find_spec("vision_msgs") is None, reason="vision_msgs is not here: apt install ros-...-vision-msgs"
)
SECOND = 1_000_000_000
OPTICAL = "camera_color_optical_frame"
INPUTS = {"color": Image, "depth": Image, "info": CameraInfo}


@pytest.fixture(scope="module")
def moving(ros: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeProcess, Watcher]]:
    """A node that places what it finds in the frame "map"; every image is an answer of its own."""
    log = tmp_path_factory.mktemp("moving") / "log"
    parameters = ["target_frame:=map", "initial_command:='segment the red cup'", "smoothing:=0.0"]
    with running_referring(log, "moving", parameters) as both:
        yield both


class MovingCamera:
    """Tells tf where the camera is, and shows what it sees there; the stamps of both go on from call to call."""

    def __init__(self, watcher: Watcher, camera: Talker) -> None:
        from tf2_ros import TransformBroadcaster

        self._watcher, self._camera = watcher, camera
        self._node = Node("test_tf")
        self._broadcaster = TransformBroadcaster(self._node)
        self._stamp = self._node.get_clock().now().nanoseconds

    def close(self) -> None:
        self._node.destroy_node()

    def position(self, view, poses: dict[float, tuple[float, ...]], at: float) -> np.ndarray:
        """Where the node places the only object of ``view``, in "map".

        Args:
            view: What the camera sees.
            poses: Seconds -> x, y, z and the angle about z in radians of the camera in the map.
            at: Seconds; when the image is taken.
        """

        def placed() -> np.ndarray | None:
            # Anew until tf has reached the node: without a transform the position stays in the camera's frame.
            self._stamp += 60 * SECOND
            for seconds, pose in poses.items():
                self._tell(self._stamp + round(seconds * SECOND), *pose)
            stamp = self._camera.send_view(view, stamp=self._stamp + round(at * SECOND))
            objects = self._watcher.of_stamp("objects", stamp)
            if objects.position_frame != "map":
                assert objects.position_frame == OPTICAL
                return None
            (found,) = objects.objects
            assert found.has_position
            return np.array([found.position.x, found.position.y, found.position.z])

        return wait_until(lambda: [found for found in (placed(),) if found is not None], "a transform", 400.0)[0]

    def _tell(self, stamp: int, x: float, y: float, z: float, angle: float) -> None:
        from geometry_msgs.msg import TransformStamped

        transform = TransformStamped(child_frame_id=OPTICAL)
        transform.header.frame_id, transform.header.stamp = "map", Time(nanoseconds=stamp).to_msg()
        moved, turned = transform.transform.translation, transform.transform.rotation
        # Not left to the message, which would take the bytes of a whole number for those of a float.
        moved.x, moved.y, moved.z = float(x), float(y), float(z)
        turned.z, turned.w = float(np.sin(angle / 2)), float(np.cos(angle / 2))
        self._broadcaster.sendTransform(transform)


@needs_tf2
def test_positions_of_a_moving_camera_are_those_of_the_images_stamp(moving, view):
    _, watcher = moving
    with Talker.camera() as camera:
        robot = MovingCamera(watcher, camera)
        try:
            in_camera = robot.position(view, {0.0: (0, 0, 0, 0), 1.0: (0, 0, 0, 0)}, 0.5)
            turned = robot.position(view, {0.0: (1, 2, 3, np.pi / 2), 1.0: (1, 2, 3, np.pi / 2)}, 0.5)
            # Between two transforms, a quarter of the way.
            moved = robot.position(view, {0.0: (0, 0, 0, 0), 1.0: (4, 0, -2, 0)}, 0.25)
        finally:
            robot.close()
    x, y, z = in_camera
    np.testing.assert_allclose(turned, (1 - y, 2 + x, 3 + z), atol=1e-6)
    np.testing.assert_allclose(moved, (x + 1, y, z - 0.5), atol=1e-6)


@needs_tf2
def test_a_camera_that_looks_down_learns_from_tf_what_stands_on_what(ros: None, log) -> None:
    scene, cup = with_a_cup_on_the_box(4)
    with SceneRenderer() as renderer:
        view = seen_from_above(renderer, scene)
    parameters = ["target_frame:=map", "initial_command:='find the cup on the box'"]
    with running_referring(log, "above", parameters) as (_, watcher), Talker.camera() as camera:
        node = Node("test_tf")
        try:
            objects = wait_until(lambda: shown_in_map(node, watcher, camera, view), "a transform", 400.0)[0]
        finally:
            node.destroy_node()
    (found,), (anchor,) = objects.objects, objects.anchors
    assert view.labels[round(found.centroid_y), round(found.centroid_x)] == cup + 1
    assert anchor.prompt == "box"
    assert found.position.z > anchor.position.z


def shown_in_map(node: Node, watcher: Watcher, camera: Talker, view) -> list:
    """The objects of a view from straight above, once tf has reached the node."""
    from geometry_msgs.msg import TransformStamped
    from tf2_ros import TransformBroadcaster

    stamp = node.get_clock().now()
    transform = TransformStamped(child_frame_id=OPTICAL)
    transform.header.frame_id, transform.header.stamp = "map", stamp.to_msg()
    # Half a turn about x: the image's upper edge is to the north, and the camera looks down.
    transform.transform.rotation.x = float(np.cos(TILT / 2))
    transform.transform.rotation.w = -float(np.sin(TILT / 2))
    TransformBroadcaster(node).sendTransform(transform)
    camera.send_view(view, stamp=stamp.nanoseconds)
    objects = watcher.of_stamp("objects", stamp.nanoseconds)
    return [objects] if objects.position_frame == "map" else []


@needs_tf2
@needs_vision_msgs
def test_detections_say_what_objects_say(moving, view):
    from vision_msgs.msg import Detection2DArray

    _, watcher = moving
    detections = watcher.hear(Detection2DArray, "detections", RELIABLE)
    with Talker.camera() as camera:
        wait_until(lambda: watcher.count_publishers("detections") > 0, "detections")

        def both():
            stamp = camera.send_view(view)
            objects = watcher.of_stamp("objects", stamp)
            same = [message for message in detections if stamp_ns(message) == stamp]
            return (objects, same[0]) if same else None

        objects, found = wait_until(both, "objects and detections of one image")
    (item,), (detection,) = objects.objects, found.detections
    assert detection.id == str(item.id)
    assert detection.results[0].hypothesis.class_id == item.prompt == "red cup"
    assert detection.results[0].hypothesis.score == pytest.approx(item.score)
    assert detection.bbox.size_x == item.x_max - item.x_min
    assert detection.bbox.size_y == item.y_max - item.y_min
    assert detection.results[0].pose.pose.position == item.position


def record(folder: Path, view, stamps: list[int]) -> None:
    """Writes a bag as ``ros2 bag record`` does, of a camera that sees ``view`` at these times."""
    from rosbags.rosbag2 import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(folder, version=9) as bag:
        topics = {name: f"/recorded/{name}" for name in INPUTS}
        kinds = {Image: "sensor_msgs/msg/Image", CameraInfo: "sensor_msgs/msg/CameraInfo"}
        connections = {
            name: bag.add_connection(topic, kinds[INPUTS[name]], typestore=store) for name, topic in topics.items()
        }
        for stamp in stamps:
            for name, message in messages_of(view).items():
                message.header.stamp, message.header.frame_id = Time(nanoseconds=stamp).to_msg(), OPTICAL
                bag.write(connections[name], stamp, serialize_message(message))


def play(folder: Path, talker: Talker) -> None:
    """Publishes a bag and its time, as ``ros2 bag play --clock`` does, as fast as it can."""
    from rosbags.rosbag2 import Reader

    with Reader(folder) as bag:
        for connection, time_ns, data in bag.messages():
            name = connection.topic.rsplit("/", 1)[-1]
            seconds, nanoseconds = divmod(time_ns, SECOND)
            talker.publishers["clock"].publish(Clock(clock=Stamp(sec=seconds, nanosec=nanoseconds)))
            talker.publishers[name].publish(deserialize_message(bytes(data), INPUTS[name]))


@pytest.mark.skipif(importlib.util.find_spec("rosbags") is None, reason="rosbags is not here: pip install rosbags")
def test_a_bag_is_segmented_in_its_own_time_and_so_is_its_second_loop(ros, log, tmp_path, view):
    # Long ago: no clock of this machine could give these stamps.
    stamps = [1000 * SECOND + index * SECOND // 10 for index in range(3)]
    record(tmp_path / "bag", view, stamps)
    parameters = [
        "use_sim_time:=true",
        "initial_command:='segment the red cup'",
        *(
            f"{parameter}:=/recorded/{name}"
            for parameter, name in (("image_topic", "color"), ("depth_topic", "depth"), ("camera_info_topic", "info"))
        ),
    ]
    topics = {"clock": (Clock, "/clock"), **{name: (kind, f"/recorded/{name}") for name, kind in INPUTS.items()}}
    with running_referring(log, "replayed", parameters) as (_, watcher), Talker(topics) as talker:
        for _ in range(2):
            watcher.seen["objects"].clear()

            def seen() -> bool:
                # The node takes the newest image alone, so that of a bag played quickly the last is sure to count.
                play(tmp_path / "bag", talker)
                return any(stamp_ns(message) == stamps[-1] for message in watcher.seen["objects"])

            wait_until(seen, "an answer to the recording")
            found = watcher.of_stamp("objects", stamps[-1])
            assert [item.prompt for item in found.objects] == ["red cup"]
            assert stamp_ns(watcher.of_stamp("mask", stamps[-1])) == stamps[-1]
        assert {stamp_ns(message) for message in watcher.seen["objects"]} <= set(stamps)
