# SPDX-License-Identifier: Apache-2.0
"""The simulated camera: a table with objects as colour, depth and lens topics, with the ground truth beside them."""

from __future__ import annotations

if __name__ == "__main__":  # before what takes long to import
    from clip_seg_ros.nodes.common import early

    early.begin()

import sys
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from clip_seg_ros.config import SimCameraConfig
from clip_seg_ros.msg import SegmentedObjectArray
from clip_seg_ros.nodes.camera.conversions import fill_image, metres_to_millimetres
from clip_seg_ros.nodes.common.parameters import ConfigParameters
from clip_seg_ros.nodes.common.qos import RELIABLE, camera_output
from clip_seg_ros.nodes.life.process import run_node
from clip_seg_ros.nodes.outputs.topics import objects_message
from clip_seg_ros.pipeline.space.localization import locate
from clip_seg_ros.sim.naming import pair_of
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import CameraPose, Scene, sample_scene
from clip_seg_ros.types import CameraIntrinsics, ObjectRegion, vector3

FRAME_ID = "camera_color_optical_frame"
ORBIT_PERIOD_S = 30.0


class SimCameraNode(Node):
    """Publishes a rendered tabletop like a depth camera would, at ``rate_hz``.

    The scene is that of ``seed`` with the objects of ``required`` and without those of ``forbidden``; these three may
    change while the node runs, and every image stamped after the answer to that request shows the new scene.
    """

    def __init__(self) -> None:
        super().__init__("sim_camera")
        config = ConfigParameters(self, SimCameraConfig, self._check_scene, self._change_scene).config
        self._depth_encoding = config.depth_encoding
        self._orbits = config.motion == "orbit"
        self._scene = _scene_of(config)
        self._renderer = SceneRenderer(config.width, config.height)
        self._messages: ViewMessages | None = None
        self._started_ns = self.get_clock().now().nanoseconds
        qos = camera_output(config.reliability)
        self._color = self.create_publisher(Image, "camera/color/image_raw", qos)
        self._info = self.create_publisher(CameraInfo, "camera/color/camera_info", qos)
        self._depth = self.create_publisher(Image, "camera/depth/image_raw", qos)
        # The same lens: the depth is aligned with the colour. RViz looks for it beside the depth.
        self._depth_info = self.create_publisher(CameraInfo, "camera/depth/camera_info", qos)
        self._true_labels = self.create_publisher(Image, "camera/ground_truth/labels", RELIABLE)
        self._true_objects = self.create_publisher(SegmentedObjectArray, "camera/ground_truth/objects", RELIABLE)
        self.timer = self.create_timer(1.0 / config.rate_hz, self._tick)
        names = ", ".join(item.name for item in self._scene.objects)
        self.get_logger().info(f"scene of seed {self._scene.seed}: {names}")

    def destroy_node(self) -> None:
        self._renderer.close()
        super().destroy_node()

    def _check_scene(self, old: SimCameraConfig, new: SimCameraConfig) -> None:
        """Raises ValueError where the simulated world has no such scene."""
        _scene_of(new)

    def _change_scene(self, old: SimCameraConfig, new: SimCameraConfig) -> None:
        self._scene = _scene_of(new)
        self._messages = None

    def messages_at(self, turns: float) -> ViewMessages:
        """Draws the scene from its camera, carried so many times around the table."""
        view = self._renderer.render(self._scene, camera=_turned(self._scene.camera, turns))
        return ViewMessages(view, self._depth_encoding)

    def _tick(self) -> None:
        if self._messages is None or self._orbits:
            elapsed_s = (self.get_clock().now().nanoseconds - self._started_ns) * 1e-9
            self._messages = self.messages_at(elapsed_s / ORBIT_PERIOD_S if self._orbits else 0.0)
        messages = self._messages
        # After the drawing: it stands for the exposure, and the time that it takes is not the robot's.
        messages.stamp(self.get_clock().now().to_msg())
        self._info.publish(messages.info)
        self._depth_info.publish(messages.info)
        self._depth.publish(messages.depth)
        self._color.publish(messages.color)
        for publisher, message in (
            (self._true_labels, messages.true_labels),
            (self._true_objects, messages.true_objects),
        ):
            if publisher.get_subscription_count() > 0:
                publisher.publish(message)


class ViewMessages:
    """Everything that one rendered view is published as; a still scene is published again with new stamps."""

    def __init__(self, view: RenderedView, depth_encoding: str) -> None:
        self.color = fill_image(Image(), view.rgb, "rgb8")
        depth = view.depth_m if depth_encoding == "32FC1" else metres_to_millimetres(view.depth_m)
        self.depth = fill_image(Image(), depth, depth_encoding)
        self.info = _camera_info(view.intrinsics)
        self.true_labels = fill_image(Image(), view.labels, "8UC1")
        self.true_objects = objects_message(self.color.header, (), true_regions(view))
        for message in (self.color, self.depth, self.info, self.true_labels, self.true_objects):
            message.header.frame_id = FRAME_ID

    def stamp(self, stamp: Time) -> None:
        for message in (self.color, self.depth, self.info, self.true_labels, self.true_objects):
            message.header.stamp = stamp


def true_regions(view: RenderedView) -> list[ObjectRegion]:
    """The visible objects of a view, located with the same statistic as the objects that a model finds."""
    regions = []
    for index, item in enumerate(view.objects):
        mask = view.labels == 1 + index
        if not mask.any():
            continue
        region = ObjectRegion.of_mask(item.name, 1 + index, 1.0, mask)
        regions.append(replace(region, position_m=locate(region, view.depth_m, view.intrinsics)))
    return regions


def _scene_of(config: SimCameraConfig) -> Scene:
    return sample_scene(config.seed, required=_pairs(config.required), forbidden=_pairs(config.forbidden))


def _pairs(names: Iterable[str]) -> list[tuple[str | None, str | None]]:
    pairs = []
    for name in names:
        pair = pair_of(name)
        if pair is None:
            raise ValueError(f"the simulated world has no {name!r}; name a colour and a kind, e.g. 'red cup'")
        pairs.append(pair)
    return pairs


def _camera_info(intrinsics: CameraIntrinsics) -> CameraInfo:
    fx, fy, cx, cy = intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy
    return CameraInfo(
        width=intrinsics.width,
        height=intrinsics.height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


def _turned(camera: CameraPose, turns: float) -> CameraPose:
    """``camera`` carried around the vertical through what it looks at."""
    angle = 2 * np.pi * turns
    x, y = camera.eye[0] - camera.target[0], camera.eye[1] - camera.target[1]
    eye = (
        camera.target[0] + x * np.cos(angle) - y * np.sin(angle),
        camera.target[1] + x * np.sin(angle) + y * np.cos(angle),
        camera.eye[2],
    )
    return replace(camera, eye=vector3(eye))


def main() -> int:
    """Runs the node as a process."""
    return run_node("sim_camera", SimCameraNode, about=__doc__)


if __name__ == "__main__":
    sys.exit(main())
