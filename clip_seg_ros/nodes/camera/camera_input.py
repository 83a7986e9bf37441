# SPDX-License-Identifier: Apache-2.0
"""The topics of one camera: colour images, and the depth images and camera_info that belong to them."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from clip_seg_ros.config import CameraTopics
from clip_seg_ros.nodes.camera.companions import StampedBuffer, is_near
from clip_seg_ros.nodes.camera.conversions import (
    ConversionError,
    camera_info_to_intrinsics,
    compressed_depth_to_metres,
    compressed_to_rgb,
    depth_to_metres,
    image_to_rgb,
)
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.nodes.common.qos import COMPANION_INPUT, IMAGE_INPUT
from clip_seg_ros.types import CameraFrame, CameraIntrinsics

AnyImage: TypeAlias = Image | CompressedImage

MAX_MESSAGE_BYTES = 2**27
"""The largest size of one image message; several are kept until their depth images arrive."""
MAX_KEPT_BYTES = 2**28
"""The largest size of all kept colour images and their depth together, and of all kept depth images together; the
newest one is always kept."""
SILENCE_S = 5.0
"""A camera that sends nothing for this many seconds counts as silent."""


@dataclass
class CameraJob:
    """One colour image, and its depth image once both have arrived."""

    camera: CameraInput
    image: AnyImage
    depth: AnyImage | None = None
    came_s: float = field(default_factory=time.monotonic)
    """Monotonic time of arrival in seconds."""

    @property
    def stamp_ns(self) -> int:
        return stamp_ns(self.image.header)

    @property
    def size_bytes(self) -> int:
        """The size of the images, in bytes; a depth image counts for every colour image that it belongs to."""
        return len(self.image.data) + (len(self.depth.data) if self.depth is not None else 0)


@dataclass(frozen=True)
class Input:
    """A subscription with its topic, type and QoS, which a warning names if nothing arrives."""

    topic: str
    kind: type
    qos: QoSProfile
    subscription: Subscription = field(repr=False)


class CameraInput:
    """Subscribes to a camera and makes a ``CameraJob`` of every image.

    The callbacks only keep messages; ``rgb`` and ``frame`` decode them on the worker's thread.

    Args:
        node: Node of the subscriptions.
        topics: Topics of the camera.
        transport: Transport of the colour images, "raw" or "compressed".
        tolerance_s: Returns how far the stamps of colour and depth may differ, in seconds.
        rectified: Returns whether the images are rectified.
        faults: Log of what is wrong with the messages.
        on_job: Called with every image, on the thread that serves the subscriptions.
        group: Callback group of the subscriptions.
    """

    def __init__(
        self,
        node: Node,
        topics: CameraTopics,
        transport: str,
        tolerance_s: Callable[[], float],
        rectified: Callable[[], bool],
        faults: FaultLog,
        on_job: Callable[[CameraJob], None],
        group: CallbackGroup | None = None,
    ) -> None:
        self.topics = topics
        self.name = topics.name
        self.arrived_s = -math.inf
        """When the last image arrived, by ``time.monotonic``, because a simulation's clock may stand still."""
        self.received = 0
        self._node, self._faults, self._tolerance_s, self._on_job = node, faults, tolerance_s, on_job
        self._rectified = rectified
        self._depth_images: StampedBuffer[AnyImage] = StampedBuffer(most_bytes=MAX_KEPT_BYTES)
        # Images whose depth may arrive later, including the one that is being processed.
        self._jobs: deque[CameraJob] = deque(maxlen=8)
        self._camera_info: CameraInfo | None = None
        self._group = group
        self.inputs: list[Input] = []
        compressed = transport == "compressed"
        topic = topics.image + ("/compressed" if compressed and not topics.image.endswith("/compressed") else "")
        kind = CompressedImage if compressed or topic.endswith("/compressed") else Image
        self._subscribe(topic, kind, IMAGE_INPUT, self._on_image)
        self.image_topic = self.inputs[0].topic
        self._depth_topic = None
        if topics.depth and topics.camera_info:
            kind = CompressedImage if topics.depth.endswith("/compressedDepth") else Image
            self._subscribe(topics.depth, kind, COMPANION_INPUT, self._on_depth)
            self._depth_topic = self.inputs[-1].topic
            self._subscribe(topics.camera_info, CameraInfo, COMPANION_INPUT, self._on_camera_info)

    def _subscribe(self, topic: str, kind: type, qos: QoSProfile, callback: Callable) -> None:
        subscription = self._node.create_subscription(
            kind,
            topic,
            callback,
            qos,
            callback_group=self._group,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self.inputs.append(Input(subscription.topic_name, kind, subscription.qos_profile, subscription))

    def close(self) -> None:
        """Ends the subscriptions."""
        for each in self.inputs:
            self._node.destroy_subscription(each.subscription)
        self.inputs = []
        # Jobs and camera refer to each other: without this they would wait for Python's garbage collector.
        self._jobs.clear()
        self._depth_images.clear()

    def is_alive(self) -> bool:
        """Returns whether an image arrived within the last ``SILENCE_S``."""
        return time.monotonic() - self.arrived_s < SILENCE_S

    @property
    def newest(self) -> CameraJob | None:
        """The image that arrived last; ``None`` before the first one."""
        jobs = list(self._jobs)
        return jobs[-1] if jobs else None

    def source(self, what: str) -> str:
        """Returns the name of the source ``what`` of this camera in the log of faults."""
        return f"{self.name} {what}" if self.name else what

    # On the thread that serves the subscriptions.

    def _on_image(self, message: AnyImage) -> None:
        self.arrived_s = time.monotonic()
        self.received += 1
        if not self._is_bearable(message, "image"):
            return
        # Images are matched when they arrive and not after the inference, which may take longer than any buffer lasts.
        job = CameraJob(self, message, self._depth_images.peek(stamp_ns(message.header), self._tolerance_s()))
        self._jobs.append(job)
        self._make_room()
        self._on_job(job)

    def _make_room(self) -> None:
        """Drops the oldest images until the rest and their depth images are small enough to be kept."""
        while len(self._jobs) > 1 and sum(job.size_bytes for job in self._jobs) > MAX_KEPT_BYTES:
            self._jobs.popleft()

    def _is_bearable(self, message: AnyImage, what: str) -> bool:
        """Returns whether a message is small enough to be kept; reports it if it is not."""
        got = len(message.data)
        if got > MAX_MESSAGE_BYTES:
            fault = f"a message of {got:,} bytes is too large, the limit is {MAX_MESSAGE_BYTES:,}: send smaller images"
            self._faults.report(self.source(what), "bytes", fault)
        return got <= MAX_MESSAGE_BYTES

    def _on_depth(self, message: AnyImage) -> None:
        if not self._is_bearable(message, "depth"):
            return
        came_ns = stamp_ns(message.header)
        self._depth_images.add(came_ns, message, len(message.data))
        for job in list(self._jobs):
            if not is_near(job.stamp_ns, came_ns, self._tolerance_s()):
                continue
            # The next image of a fast camera may be within the tolerance, too: the nearest depth wins.
            if job.depth is None or abs(came_ns - job.stamp_ns) < abs(stamp_ns(job.depth.header) - job.stamp_ns):
                job.depth = message
        self._make_room()

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message

    # On the worker's thread.

    def rgb(self, job: CameraJob) -> np.ndarray | None:
        """Returns the image of a job, (H, W, 3) uint8; ``None`` and a reported fault if it cannot be read."""
        read = compressed_to_rgb if isinstance(job.image, CompressedImage) else image_to_rgb
        try:
            return read(job.image)
        except ConversionError as error:
            self._faults.report(self.source("image"), error.fault, str(error))
            return None

    def frame(self, job: CameraJob, rgb: np.ndarray) -> CameraFrame:
        """Returns the image of a job with its depth and its intrinsics, if they have arrived and fit the image."""
        header, size = job.image.header, rgb.shape[:2]
        depth_m = self._depth_of(job, size)
        intrinsics = self._intrinsics_of(size) if depth_m is not None else None
        return CameraFrame(rgb, job.stamp_ns, header.frame_id, depth_m=depth_m, intrinsics=intrinsics)

    def _depth_of(self, job: CameraJob, size: tuple[int, int]) -> np.ndarray | None:
        """Returns the depth of the colour image, (H, W) float32 metres, or ``None``."""
        if self._depth_topic is None:
            return None
        source, tolerance_s = self.source("depth"), self._tolerance_s()
        expected = self._node.count_publishers(self._depth_topic) > 0
        match = job.depth or self._depth_images.nearest(job.stamp_ns, tolerance_s, expected)
        if match is None:
            if expected:
                fault = f"no depth image within {tolerance_s:g} s of the colour image: no positions"
                self._faults.report(source, "unmatched", fault)
            return None
        read = compressed_depth_to_metres if isinstance(match, CompressedImage) else depth_to_metres
        try:
            depth_m = read(match)
        except ConversionError as error:
            self._faults.report(source, error.fault, f"{error}: no positions")
            return None
        if depth_m.shape != size:
            self._faults.report(source, "size", _size_fault("the depth image", depth_m.shape, size))
            return None
        self._faults.clear(source)
        return depth_m

    def _intrinsics_of(self, size: tuple[int, int]) -> CameraIntrinsics | None:
        source, info = self.source("camera_info"), self._camera_info
        if info is None:
            self._faults.report(source, "none", "there is a depth camera, but no camera_info: no positions")
            return None
        try:
            intrinsics = camera_info_to_intrinsics(info, self._rectified())
        except ConversionError as error:
            self._faults.report(source, error.fault, f"{error}: no positions")
            return None
        if (intrinsics.height, intrinsics.width) != size:
            fault = _size_fault("camera_info", (intrinsics.height, intrinsics.width), size)
            self._faults.report(source, "size", fault)
            return None
        self._faults.clear(source)
        self._doubt_distortion(intrinsics)
        return intrinsics

    def _doubt_distortion(self, intrinsics: CameraIntrinsics) -> None:
        """Reports an image that is treated as raw although the name of its topic says that it is rectified."""
        source = self.source("rectified")
        if intrinsics.distortion and "/image_rect" in self.image_topic:
            fault = (
                f"{self.image_topic} sounds rectified, but the distortion in camera_info is undone: "
                "set the parameter rectified if it is"
            )
            self._faults.report(source, "name", fault)
        else:
            self._faults.clear(source)


def stamp_ns(header: Header) -> int:
    """Returns the stamp of a header in nanoseconds."""
    return Time.from_msg(header.stamp).nanoseconds


def _size_fault(what: str, size: tuple[int, int], wanted: tuple[int, int]) -> str:
    return (
        f"{what} is {size[1]}x{size[0]}, the colour image {wanted[1]}x{wanted[0]}; they must be aligned: no positions"
    )
