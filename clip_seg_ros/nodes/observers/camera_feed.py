# SPDX-License-Identifier: Apache-2.0
"""Pairs the images of one camera with what a node found in them, while somebody looks at them."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.subscription import Subscription
from rclpy.time import Time
from sensor_msgs.msg import Image, PointCloud2

from clip_seg_ros.config import CameraTopics, SegmentationConfig
from clip_seg_ros.msg import SegmentedObjectArray
from clip_seg_ros.nodes.camera.camera_input import CameraInput, CameraJob
from clip_seg_ros.nodes.camera.target_frame import TargetFrame
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.nodes.common.qos import RELIABLE
from clip_seg_ros.nodes.observers.seen_things import cloud_of, things_of
from clip_seg_ros.nodes.observers.surroundings import Surroundings, surroundings_of
from clip_seg_ros.sources.image_decoding import ConversionError, samples
from clip_seg_ros.viewer.views import View, Wanted

LINGER_S = 2.0
"""The time in seconds after which subscriptions that nobody wants any more are given up."""
_SPACE_PERIOD_S = 1.0
"""The least time in seconds between two looks at the depth."""
_PATIENCE_S = (3.0, 30.0)
"""The least and the greatest time in seconds without an answer after which bare images are shown again."""
_KEPT_ANSWERS = 8
_KEPT_IMAGES = 128
_KEPT_BYTES = 2**26
"""What is kept at most of images that may still be answered; the newest one is always kept."""

_KINDS: dict[str, type] = {
    "objects": SegmentedObjectArray,
    "labels": Image,
    "confidence": Image,
    "points": PointCloud2,
}
TOPICS: dict[str, dict[str, str]] = {
    "referring": {part: part for part in _KINDS},
    # What its pixels belong to is a class there; the ids of objects are beside it.
    "semantic": {
        "objects": "semantic/objects",
        "labels": "semantic/instances",
        "confidence": "semantic/confidence",
    },
}
"""The topics of what is shown, by the kind of the node."""
_REQUIRED = frozenset({"objects", "labels"})


class CameraFeed:
    """Subscribes to what is wanted of one camera, and shows each answered image, or bare ones where none is answered.

    All methods must be called on the thread that spins the node.

    Args:
        node: Node of the subscriptions, in the namespace of the node that answers.
        kind: Kind of the node that answers, a key of ``TOPICS``.
        topics: The camera.
        config: The parameters of the node that answers.
        faults: Log of what is wrong with messages.
        show: Called with each image.
    """

    def __init__(
        self,
        node: Node,
        kind: str,
        topics: CameraTopics,
        config: SegmentationConfig,
        faults: FaultLog,
        show: Callable[[View], None],
    ) -> None:
        self._node, self._topics, self._faults, self._emit = node, topics, faults, show
        self.config = config
        """The parameters of the node that answers; those that are live may change."""
        prefix = f"{topics.name}/" if topics.name else ""
        self._names = {part: prefix + name for part, name in TOPICS[kind].items()}
        self._wanted = Wanted()
        self._wanted_s: dict[str, float] = {}
        """When each part was wanted last, by ``time.monotonic()``."""
        self._subscriptions: dict[str, Subscription] = {}
        self._flowing: set[str] = set()
        """The parts of which a message has come."""
        self._camera: CameraInput | None = None
        self._jobs: OrderedDict[int, CameraJob] = OrderedDict()
        self._answers: OrderedDict[int, dict[str, Any]] = OrderedDict()
        """The parts of each answer by the stamp of its image, and its ``latency_ms``."""
        self._answered_s, self._patience_s = -math.inf, _PATIENCE_S[0]
        self._target: TargetFrame | None = None
        self._space: Surroundings | None = None
        self._space_s = -math.inf

    def close(self) -> None:
        """Gives up all subscriptions."""
        self._wanted, self._wanted_s = Wanted(), {}
        self._keep(set())

    def follow(self, wanted: Wanted) -> None:
        """Subscribes to what is wanted, and gives up what was not wanted for a while; call it now and then."""
        self._wanted, now_s = wanted, time.monotonic()
        for part in self._parts(wanted):
            self._wanted_s[part] = now_s
        self._keep({part for part, at_s in self._wanted_s.items() if now_s - at_s < LINGER_S})

    def rest(self) -> None:
        """Notes that the node answers no images of this camera at present: they are shown as they come."""
        self._answered_s = -math.inf

    @property
    def _is_looked_at(self) -> bool:
        return self._topics.name in self._wanted.cameras

    def _parts(self, wanted: Wanted) -> set[str]:
        if not self._is_looked_at:
            return set()
        parts = {"camera", *_REQUIRED}
        if wanted.confidence:
            parts.add("confidence")
        if wanted.space:
            parts |= {"points", "depth"}
        return parts

    def _keep(self, parts: set[str]) -> None:
        """Subscribes to these parts, and to nothing else."""
        for part, name in self._names.items():
            if part in parts and part not in self._subscriptions:
                take = partial(self._on_part, part)
                self._subscriptions[part] = self._node.create_subscription(_KINDS[part], name, take, RELIABLE)
            elif part not in parts and part in self._subscriptions:
                self._node.destroy_subscription(self._subscriptions.pop(part))
                self._flowing.discard(part)
        self._keep_camera("camera" in parts, "depth" in parts)

    def _keep_camera(self, is_wanted: bool, with_depth: bool) -> None:
        topics = self._topics if with_depth else replace(self._topics, depth="", camera_info="")
        if self._camera is not None and not (is_wanted and self._camera.topics == topics):
            self._camera.close()
            self._camera = None
            self._jobs.clear()
            self._answers.clear()
        if is_wanted and self._camera is None:
            self._camera = CameraInput(
                self._node,
                topics,
                self.config.image_transport,
                lambda: getattr(self.config, "depth_tolerance_s", 0.0),
                lambda: getattr(self.config, "rectified", False),
                self._faults,
                self._on_job,
            )
        target = getattr(self.config, "target_frame", "")
        if with_depth and target and self._target is None:
            self._target = TargetFrame(self._node, target, self._faults)
        if not with_depth:
            if self._target is not None:
                self._target.close()
            self._target = self._space = None
            self._space_s = -math.inf

    # Messages.

    def _on_job(self, job: CameraJob) -> None:
        self._jobs[job.stamp_ns] = job
        self._make_room()
        if job.stamp_ns in self._answers:
            self._try(job.stamp_ns)
        elif time.monotonic() - self._answered_s > self._patience_s:
            self._show(job, {})

    def _make_room(self) -> None:
        size = sum(job.size_bytes for job in self._jobs.values())
        while len(self._jobs) > 1 and (len(self._jobs) > _KEPT_IMAGES or size > _KEPT_BYTES):
            size -= self._jobs.popitem(last=False)[1].size_bytes

    def _on_part(self, part: str, message: Any) -> None:
        stamp_ns = Time.from_msg(message.header.stamp).nanoseconds
        answer = self._answers.setdefault(stamp_ns, {})
        answer[part] = message
        if part == "objects":
            answer["latency_ms"] = (self._node.get_clock().now().nanoseconds - stamp_ns) * 1e-6
        while len(self._answers) > _KEPT_ANSWERS:
            self._answers.popitem(last=False)
        self._flowing.add(part)
        self._try(stamp_ns)

    def _try(self, stamp_ns: int) -> None:
        """Shows an answered image once all of its parts have come; those that the node does not send are left out."""
        answer, job = self._answers[stamp_ns], self._jobs.get(stamp_ns)
        if job is None or not answer.keys() >= _REQUIRED:
            return
        missing = self._flowing - answer.keys()
        if missing and sum(each.keys() >= _REQUIRED for each in self._answers.values()) < _KEPT_ANSWERS // 2:
            return
        self._flowing -= missing
        del self._answers[stamp_ns]
        now_s = time.monotonic()
        if self._answered_s > 0:
            least_s, most_s = _PATIENCE_S
            self._patience_s = min(max(4 * (now_s - self._answered_s), least_s), most_s)
        self._answered_s = now_s
        self._show(job, answer)
        # Answers come in the order of their images.
        for older in [each for each in self._jobs if each <= stamp_ns]:
            del self._jobs[older]

    # Views.

    def _show(self, job: CameraJob, answer: Mapping[str, Any]) -> None:
        if not self._is_looked_at or self._camera is None:
            return
        rgb = self._camera.rgb(job)
        if rgb is None:
            return
        space = self._look_around(job, rgb) if self._wanted.space else None
        view = View(self._topics.name, job.stamp_ns, job.came_s, rgb, frame=job.image.header.frame_id)
        if answer:
            view = self._with_answer(view, answer)
        elif space is not None:
            view = replace(view, frame=space.frame)
        if space is not None and space.frame == view.frame:
            view = replace(
                view,
                surroundings=space.surroundings,
                intrinsics=space.intrinsics,
                camera_pose=space.camera_pose,
                table=space.table,
            )
        self._emit(view)

    def _with_answer(self, view: View, answer: Mapping[str, Any]) -> View:
        objects: SegmentedObjectArray = answer["objects"]
        shape = view.rgb.shape[:2]
        return replace(
            view,
            prompts=tuple(objects.prompts),
            things=things_of(objects),
            labels=self._map("labels", answer, "u1", shape),
            confidence=self._map("confidence", answer, "f4", shape) if self._wanted.confidence else None,
            frame=objects.position_frame or view.frame,
            cloud=self._cloud(answer) if self._wanted.space else None,
            notes={"latency_ms": answer["latency_ms"]},
        )

    def _map(self, part: str, answer: Mapping[str, Any], kind: str, shape: tuple[int, int]) -> np.ndarray | None:
        """Returns a part that is an image of one channel, (H, W); ``None`` if it is not there or does not fit."""
        if part not in answer:
            return None
        try:
            pixels = samples(answer[part], kind)
        except ConversionError as error:
            self._faults.report(part, error.fault, f"{self._names[part]} cannot be read: {error}")
            return None
        if pixels.shape != shape:
            sizes = f"{pixels.shape[1]}x{pixels.shape[0]} and not {shape[1]}x{shape[0]} as its image"
            self._faults.report(part, "size", f"{self._names[part]} is {sizes}")
            return None
        return pixels

    def _cloud(self, answer: Mapping[str, Any]) -> Any:
        if "points" not in answer:
            return None
        try:
            return cloud_of(answer["points"])
        except ValueError as error:
            self._faults.report("points", str(error), f"{self._names['points']} cannot be read: {error}")
            return None

    def _look_around(self, job: CameraJob, rgb: np.ndarray) -> Surroundings | None:
        """Returns the surroundings that an image shows, or those that were looked at less than a period ago."""
        now_s = time.monotonic()
        if now_s - self._space_s < _SPACE_PERIOD_S:
            return self._space
        # The depth of an image often arrives a little after it.
        source = job if job.depth is not None else self._newest_with_depth()
        pixels = rgb if source is job else self._camera.rgb(source) if source is not None else None
        if pixels is not None:
            motion = self._target.of(source.image.header) if self._target is not None else None
            self._space = surroundings_of(self._camera.frame(source, pixels), motion)
            self._space_s = now_s
        return self._space

    def _newest_with_depth(self) -> CameraJob | None:
        return next((job for job in reversed(self._jobs.values()) if job.depth is not None), None)
