"""Nodes as real processes, and a node in the test's own process that talks to them over Fast DDS."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from geometry_msgs.msg import PoseArray
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String
from visualization_msgs.msg import MarkerArray

from clip_seg_ros.msg import CommandStatus, SegmentedObjectArray
from clip_seg_ros.nodes.qos import RELIABLE, camera_output

PATIENCE_S = 180.0


class NodeProcess:
    """``python -m clip_seg_ros.nodes.<name>`` with its stderr in a file."""

    def __init__(self, name: str, log: Path, parameters: Sequence[str] = (), files: Sequence[Path] = ()) -> None:
        self._log = log
        arguments = [word for file in files for word in ("--params-file", str(file))]
        arguments += [word for parameter in parameters for word in ("-p", parameter)]
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"clip_seg_ros.nodes.{name}", "--ros-args", *arguments],
                stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            )  # fmt: skip

    def said(self) -> str:
        """All that it wrote so far."""
        return self._log.read_text()

    def wait_said(self, text: str) -> str:
        """Returns what it wrote once that holds ``text``."""
        wait_until(lambda: text in self.said() or self.process.poll() is not None, f"the node to say {text!r}")
        assert text in self.said(), f"the node ended and never said {text!r}:\n{self.said()}"
        return self.said()

    def end(self, number: int = signal.SIGINT) -> int:
        """Sends a signal and returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait_end()

    def wait_end(self) -> int:
        """Returns the exit code once it has ended by itself."""
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def wait_until(happened: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Returns what ``happened`` returns once that is true."""
    deadline = time.monotonic() + patience_s
    while not (result := happened()):
        assert time.monotonic() < deadline, f"waited {patience_s:g} s in vain for {what}"
        time.sleep(0.01)
    return result


class Watcher(Node):
    """Keeps every output of the ``referring`` node, and plays the camera and the person."""

    OUTPUTS = {
        "status": CommandStatus,
        "mask": Image,
        "labels": Image,
        "confidence": Image,
        "overlay": Image,
        "objects": SegmentedObjectArray,
        "centroids": PoseArray,
        "markers": MarkerArray,
    }

    def __init__(self) -> None:
        super().__init__("watcher", namespace="clip_seg")
        self.seen: dict[str, list[Any]] = {name: [] for name in self.OUTPUTS}
        for name, kind in self.OUTPUTS.items():
            self.create_subscription(kind, name, self.seen[name].append, RELIABLE)
        self._command = self.create_publisher(String, "command", RELIABLE)
        self._service_clients: dict[str, Client] = {}
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join()
        self.destroy_node()

    def wait_for_node(self) -> None:
        """Returns when the node would hear a command and would be heard."""
        wait_until(
            lambda: self._command.get_subscription_count() > 0
            and all(self.count_publishers(f"/clip_seg/{name}") > 0 for name in self.OUTPUTS),
            "the referring node",
        )

    def call(self, kind: type, service: str, request: Any) -> Any:
        """Calls a service and returns its response."""
        if service not in self._service_clients:
            self._service_clients[service] = self.create_client(kind, service)
        assert self._service_clients[service].wait_for_service(PATIENCE_S), f"there is no service {service}"
        future = self._service_clients[service].call_async(request)
        wait_until(future.done, service)
        return future.result()

    def say(self, text: str) -> CommandStatus:
        """Gives a command; returns its first status."""
        before = len(self.seen["status"])
        self._command.publish(String(data=text))
        return wait_until(lambda: self.seen["status"][before:], f"a status of {text[:40]!r}")[0]

    def outcome(self, command_id: int) -> CommandStatus:
        """Waits for the status that says what an image held."""
        immediate = (CommandStatus.ACCEPTED, CommandStatus.REJECTED)

        def find() -> list[CommandStatus]:
            return [s for s in self.seen["status"] if s.command_id == command_id and s.state not in immediate]

        return wait_until(find, f"the outcome of command {command_id}")[0]

    def of_stamp(self, name: str, stamp: int, patience_s: float = PATIENCE_S) -> Any:
        """Waits for the output that carries this stamp."""
        return wait_until(
            lambda: [m for m in self.seen[name][:] if stamp_ns(m) == stamp], f"{name} of {stamp}", patience_s
        )[0]


class Camera:
    """Publishers of a camera's topics, for as long as its block lasts.

    They belong to a node of their own: rclpy cannot take away a publisher from a node that another thread spins.
    """

    def __init__(self, depth: bool = True) -> None:
        qos = camera_output("reliable")
        self._node = Node("test_camera")
        self._color = self._node.create_publisher(Image, "/camera/color/image_raw", qos)
        self._publishers = [self._color]
        if depth:
            self._depth = self._node.create_publisher(Image, "/camera/depth/image_raw", qos)
            self._info = self._node.create_publisher(CameraInfo, "/camera/color/camera_info", qos)
            self._publishers += [self._depth, self._info]

    def __enter__(self) -> Camera:
        wait_until(
            lambda: all(publisher.get_subscription_count() > 0 for publisher in self._publishers),
            "the node to listen to the camera",
        )
        # The node may learn of this camera a little later than this camera of the node.
        time.sleep(0.5)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._node.destroy_node()

    def send(self, color: Image, depth: Image | None = None, info: CameraInfo | None = None) -> int:
        """Stamps and publishes; returns the stamp in nanoseconds."""
        now = self._node.get_clock().now()
        for message in (color, depth, info):
            if message is not None:
                message.header.stamp = now.to_msg()
                message.header.frame_id = "camera_color_optical_frame"
        self._color.publish(color)
        if depth is not None:
            self._depth.publish(depth)
        if info is not None:
            self._info.publish(info)
        return now.nanoseconds


def stamp_ns(message: Any) -> int:
    """The stamp of any output, nanoseconds."""
    header = message.markers[0].header if isinstance(message, MarkerArray) else message.header
    return Time.from_msg(header.stamp).nanoseconds
