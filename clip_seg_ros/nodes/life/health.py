# SPDX-License-Identifier: Apache-2.0
"""The statuses that a node publishes on /diagnostics once a second."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.qos import QoSProfile

from clip_seg_ros.nodes.camera.camera_input import CameraInput, CameraJob
from clip_seg_ros.nodes.camera.intake import Spent
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.nodes.common.log_limits import BoundedLogs
from clip_seg_ros.nodes.life.model_switch import ModelSwitch
from clip_seg_ros.zoo.caution import in_commands, in_corner

PERIOD_S = 1.0
_KEPT = 200


@dataclass
class _Counts:
    """The counts and times of one camera."""

    dropped: int = 0
    answered: int = 0
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """The times from an image's stamp to its answers."""
    models_s: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """The parts of these times that the model took."""
    last_answered: int = 0
    last_received: int = 0
    last_s: float = field(default_factory=lambda: time.monotonic() - PERIOD_S)
    """The monotonic time when the rates were computed last."""


class Health:
    """Counts received, answered and dropped images and publishes one status per camera and one of the model.

    Args:
        node: Node that publishes; messages that its log held back are written with each publication.
        models: Its host has the model in use.
        faults: Log whose standing faults are repeated in the status of the model.
        cameras: Returns the cameras with a subscription at the moment.
        idle_because: Returns why a camera's images are not answered at the moment; empty if they are.
        values: Returns what is to be told beside it, by name.
    """

    def __init__(
        self,
        node: BoundedLogs,
        models: ModelSwitch,
        faults: FaultLog,
        cameras: Callable[[], Sequence[CameraInput]],
        idle_because: Callable[[str], str],
        values: Callable[[], Mapping[str, str]],
    ) -> None:
        self._node, self._models, self._faults = node, models, faults
        self._cameras, self._idle_because, self._values = cameras, idle_because, values
        # A camera object exists from activation to deactivation.
        self._counts: WeakKeyDictionary[CameraInput, _Counts] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
        # A steady clock runs on while the time of a simulation stands still.
        self._timer = node.create_timer(PERIOD_S, self._publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Destroys the timer and the publisher."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_publisher(self._publisher)

    def dropped(self, camera: CameraInput) -> None:
        """Counts an image that was replaced by a newer one before it was answered."""
        with self._lock:
            self._of(camera).dropped += 1

    def answered(self, job: CameraJob, spent: Spent) -> None:
        """Counts an image whose answers were published just now."""
        latency_s = (self._node.get_clock().now().nanoseconds - job.stamp_ns) * 1e-9
        with self._lock:
            counts = self._of(job.camera)
            counts.answered += 1
            counts.latencies_s.append(latency_s)
            counts.models_s.append(spent.model)
        arrival_s = latency_s - (time.monotonic() - job.came_s)
        self._node.get_logger().debug(
            f"image {job.stamp_ns}: {1e3 * arrival_s:.2f} ms to arrive, {1e3 * spent.waiting:.2f} ms waiting, "
            f"{1e3 * spent.model:.2f} ms in the model, {1e3 * latency_s:.2f} ms from stamp to answer, "
            f"{job.camera.received} images received"
        )

    def _of(self, camera: CameraInput) -> _Counts:
        return self._counts.setdefault(camera, _Counts())

    def _publish(self) -> None:
        self._node.get_logger().catch_up()
        now = self._node.get_clock().now()
        with self._lock:
            statuses = [self._status(camera) for camera in self._cameras()]
        message = DiagnosticArray(status=[self._model_status(), *statuses])
        message.header.stamp = now.to_msg()
        self._publisher.publish(message)

    def _status(self, camera: CameraInput) -> DiagnosticStatus:
        counts, now_s = self._of(camera), time.monotonic()
        passed_s = now_s - counts.last_s
        values = {
            "topic": camera.image_topic,
            "images received per second": f"{(camera.received - counts.last_received) / passed_s:.1f}",
            "images answered per second": f"{(counts.answered - counts.last_answered) / passed_s:.1f}",
            "images dropped for newer ones": str(counts.dropped),
        }
        counts.last_received, counts.last_answered, counts.last_s = camera.received, counts.answered, now_s
        if camera.received:
            values["age of the last image, seconds"] = f"{now_s - camera.arrived_s:.2f}"
        for share in (50, 99):
            for what, seconds in (("stamp to answer", counts.latencies_s), ("model alone", counts.models_s)):
                if seconds:
                    values[f"{what}, ms, {share}th percentile"] = f"{1000 * np.percentile(list(seconds), share):.1f}"
        level, note = DiagnosticStatus.OK, self._idle_because(camera.name) or "answering"
        if not camera.is_alive():
            level, note = DiagnosticStatus.WARN, f"no images on {camera.image_topic}"
        return self._make(f"camera {camera.name}".strip(), level, note, values)

    def _model_status(self) -> DiagnosticStatus:
        import torch

        host = self._models.host
        name, predictor = host.name, host.predictor
        chosen = predictor.chosen
        values = {"device": str(predictor.device), "engine": chosen.engine, "precision": chosen.precision}
        if chosen.note:
            values["why this engine"] = chosen.note
        if predictor.device.type == "cuda":
            values["GPU memory, MiB"] = f"{torch.cuda.memory_allocated(predictor.device) / 2**20:.0f}"
            values["GPU memory at its peak, MiB"] = f"{torch.cuda.max_memory_allocated(predictor.device) / 2**20:.0f}"
        if progress := self._models.progress:
            values["being fetched"] = progress
        serves = f"{name} serves"
        if corner := in_corner(predictor.spec):
            serves += f"; {corner}"
            values["for real pictures"] = in_commands(predictor.spec)
        values.update(self._values())
        standing = self._faults.standing()
        level = DiagnosticStatus.WARN if standing else DiagnosticStatus.OK
        return self._make("model", level, "; ".join(standing) or serves, {"model": name, **values})

    def _make(self, what: str, level: bytes, note: str, values: dict[str, str]) -> DiagnosticStatus:
        name = f"{self._node.get_fully_qualified_name().strip('/')}: {what}"
        pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
        return DiagnosticStatus(name=name, level=level, message=note, hardware_id="", values=pairs)
