# SPDX-License-Identifier: Apache-2.0
"""Nodes as real processes, and a node in the test's own process that talks to them over Fast DDS."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from builtin_interfaces.msg import Time as Stamp
from geometry_msgs.msg import PoseArray
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header, String
from visualization_msgs.msg import MarkerArray

from clip_seg_ros.msg import CommandStatus, SegmentedObjectArray
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.nodes.common.qos import RELIABLE, camera_output
from clip_seg_ros.sim.renderer import RenderedView
from forks import ForkedProgram, fresh_program

PATIENCE_S = 300.0
ASK_AGAIN_S = 30.0
KNOWN_S = 1.0


class NodeProcess:
    """``python -m clip_seg_ros.nodes.<name>`` with its output in a file; by default in its own namespace.

    A ``fresh`` one begins with nothing imported, as on a robot; it takes seconds.
    """

    def __init__(
        self,
        name: str,
        log: Path,
        parameters: Sequence[str] = (),
        files: Sequence[Path] = (),
        namespace: str = "",
        fresh: bool = False,
    ) -> None:
        self._log = log
        if name in ("referring", "semantic") and not any(each.startswith("engine:=") for each in parameters):
            # A first start of the others takes seconds, and the tests of nodes are not about them.
            parameters = ["engine:=eager", *parameters]
        arguments = [word for file in files for word in ("--params-file", str(file))]
        arguments += [word for parameter in parameters for word in ("-p", parameter)]
        arguments += ["-r", f"__ns:=/{namespace}"] if namespace else []
        start = fresh_program if fresh else ForkedProgram
        self.process = start(f"clip_seg_ros.nodes.{name}", ["--ros-args", *arguments], log)

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
    """Keeps every output of the ``referring`` node, and plays the camera and the person.

    Args:
        namespace: Of that node.
        cameras: Names of its cameras; their outputs are kept as "NAME/mask" and so on.
    """

    NODE: ClassVar = "referring"
    OUTPUTS: ClassVar = {
        "status": CommandStatus,
        "mask": Image,
        "labels": Image,
        "confidence": Image,
        "overlay": Image,
        "objects": SegmentedObjectArray,
        "centroids": PoseArray,
        "markers": MarkerArray,
        "points": PointCloud2,
    }

    def __init__(self, namespace: str = "clip_seg", cameras: Sequence[str] = ("",)) -> None:
        super().__init__("watcher", namespace=namespace)
        kinds = {
            f"{camera}/{name}" if camera and name != "status" else name: kind
            for camera in cameras
            for name, kind in self.OUTPUTS.items()
        }
        self.seen: dict[str, list[Any]] = {name: [] for name in kinds}
        for name, kind in kinds.items():
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

    def wait_for_node(self, name: str = "") -> None:
        """Returns when the node, by default ``NODE``, would hear a command and would be heard."""
        wait_until(
            lambda: (
                self._command.get_subscription_count() > 0
                and all(self.count_publishers(name) > 0 for name in self.seen)
            ),
            "the node",
        )
        # Whoever discovers this client has discovered the subscriptions before it.
        request = GetParameters.Request(names=["model"])
        self.call(GetParameters, f"{name or self.NODE}/get_parameters", request, again_s=1.0)

    def call(self, kind: type, service: str, request: Any, again_s: float = ASK_AGAIN_S) -> Any:
        """Calls a service and returns its response; the first call of a service is made again after ``again_s``."""
        client, is_new = self._service_clients.get(service), service not in self._service_clients
        if is_new:
            client = self._service_clients[service] = self.create_client(kind, service)
        assert client.wait_for_service(PATIENCE_S), f"there is no service {service}"
        futures = [client.call_async(request)]
        asked_s = time.monotonic()

        def answered() -> Any:
            # Fast DDS drops the response to a client that the other side has not discovered yet.
            if is_new and time.monotonic() - asked_s > again_s * len(futures):
                futures.append(client.call_async(request))
            return [future for future in futures if future.done()]

        return wait_until(answered, service)[0].result()

    def say(self, text: str) -> CommandStatus:
        """Gives a command; returns its first status."""
        before = len(self.seen["status"])
        self._command.publish(String(data=text))
        return wait_until(lambda: self.seen["status"][before:], f"a status of {text[:40]!r}")[0]

    def statuses(self, command_id: int) -> list[CommandStatus]:
        """All statuses of a command so far."""
        return [status for status in self.seen["status"][:] if status.command_id == command_id]

    def hear(self, kind: type, topic: str, qos: Any) -> list[Any]:
        """Subscribes to a topic; returns a list that grows with its messages."""
        heard: list[Any] = []
        self.create_subscription(kind, topic, heard.append, qos)
        return heard

    def set_parameter(self, node: str, name: str, value: Any) -> SetParametersResult:
        """Sets a parameter of a node in the watcher's namespace."""
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, f"{node}/set_parameters", request).results[0]

    def get_text(self, node: str, name: str) -> str:
        """The text that a parameter of a node holds."""
        request = GetParameters.Request(names=[name])
        return self.call(GetParameters, f"{node}/get_parameters", request).values[0].string_value

    def outcome(self, command_id: int, patience_s: float = PATIENCE_S) -> CommandStatus:
        """Waits for the status that says what an image held."""
        immediate = (CommandStatus.ACCEPTED, CommandStatus.REJECTED)

        def find() -> list[CommandStatus]:
            return [s for s in self.seen["status"] if s.command_id == command_id and s.state not in immediate]

        return wait_until(find, f"the outcome of command {command_id}", patience_s)[0]

    def of_stamp(self, name: str, stamp: int, patience_s: float = PATIENCE_S) -> Any:
        """Waits for the output that carries this stamp."""
        return wait_until(
            lambda: [m for m in self.seen[name][:] if stamp_ns(m) == stamp], f"{name} of {stamp}", patience_s
        )[0]


class SemanticWatcher(Watcher):
    """Keeps every output of the ``semantic`` node."""

    NODE: ClassVar = "semantic"
    OUTPUTS: ClassVar = {
        "status": CommandStatus,
        "semantic/labels": Image,
        "semantic/color": Image,
        "semantic/overlay": Image,
        "semantic/objects": SegmentedObjectArray,
        "semantic/instances": Image,
    }


@contextmanager
def running_referring(
    log: Path, namespace: str, parameters: Sequence[str], cameras: Sequence[str] = ("",), fresh: bool = False
) -> Iterator[tuple[NodeProcess, Watcher]]:
    """A ``referring`` node in a namespace of its own, and who watches it; it must end quietly."""
    node = NodeProcess("referring", log, parameters, namespace=namespace, fresh=fresh)
    watcher = Watcher(namespace, cameras)
    try:
        node.wait_said("commands:")
        watcher.wait_for_node()
        yield node, watcher
        assert node.end() == 0
        assert "Traceback" not in node.said()
    finally:
        watcher.close()
        node.end()


class Stream:
    """Sends an image ten times a second, on a thread, for as long as its block lasts."""

    def __init__(self, camera: Camera, color: Image, period_s: float = 0.1) -> None:
        self._camera, self._color, self._period_s = camera, color, period_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._period_s):
            self._camera.send(self._color)


class Camera:
    """Publishers of a camera's topics, for as long as its block lasts.

    They belong to a node of their own: rclpy cannot take away a publisher from a node that another thread spins.
    """

    def __init__(self, depth: bool = True, topic: str = "/camera/color/image_raw") -> None:
        qos = camera_output("reliable")
        self._node = Node("test_camera")
        self._color = self._node.create_publisher(Image, topic, qos)
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
        time.sleep(KNOWN_S)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._node.destroy_node()

    def send(
        self, color: Image, depth: Image | None = None, info: CameraInfo | None = None, stamp: Stamp | None = None
    ) -> int:
        """Stamps, by default with the time that it is, and publishes; returns that time in nanoseconds."""
        now = self._node.get_clock().now()
        for message in (color, depth, info):
            if message is not None:
                message.header.stamp = stamp or now.to_msg()
                message.header.frame_id = "camera_color_optical_frame"
        self._color.publish(color)
        if depth is not None:
            self._depth.publish(depth)
        if info is not None:
            self._info.publish(info)
        return now.nanoseconds


class Talker:
    """Publishers of any topics, for as long as its block lasts, in a node of their own as ``Camera``'s are.

    Args:
        topics: name -> (type, topic).
        qos: Of all of them; by default that of a reliable camera.
        node_name: Of the node.
        heard: Whether to wait at the beginning until every topic has a subscriber that fits.
    """

    def __init__(
        self,
        topics: Mapping[str, tuple[type, str]],
        qos: QoSProfile | None = None,
        node_name: str = "test_talker",
        heard: bool = True,
    ) -> None:
        qos = qos or camera_output("reliable")
        self._node = Node(node_name)
        self._heard = heard
        self.publishers = {
            name: self._node.create_publisher(kind, topic, qos) for name, (kind, topic) in topics.items()
        }

    @classmethod
    def camera(cls, prefix: str = "/camera", depth: bool = True, compressed: bool = False) -> Talker:
        """Colour, depth and lens of a camera, as ``Camera``, under topics of its own."""
        image = (CompressedImage, "/compressed") if compressed else (Image, "")
        topics = {"color": (image[0], f"{prefix}/color/image_raw{image[1]}")}
        if depth:
            topics["depth"] = (Image, f"{prefix}/depth/image_raw")
            topics["info"] = (CameraInfo, f"{prefix}/color/camera_info")
        return cls(topics, node_name=f"test{prefix.replace('/', '_')}")

    def __enter__(self) -> Talker:
        if self._heard:
            listened = [publisher.get_subscription_count for publisher in self.publishers.values()]
            wait_until(lambda: all(count() > 0 for count in listened), "somebody to listen")
            time.sleep(KNOWN_S)  # as in Camera
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._node.destroy_node()

    def send(self, frame_id: str = "camera_color_optical_frame", stamp: int | None = None, **messages: Any) -> int:
        """Stamps, by default with the present time, and publishes messages, by the names of their topics.

        Returns:
            The stamp in nanoseconds.
        """
        stamp = self._node.get_clock().now().nanoseconds if stamp is None else stamp
        for message in messages.values():
            message.header = Header(stamp=Time(nanoseconds=stamp).to_msg(), frame_id=frame_id)
        for name, message in messages.items():
            self.publishers[name].publish(message)
        return stamp

    def send_view(
        self, view: RenderedView, frame_id: str = "camera_color_optical_frame", stamp: int | None = None
    ) -> int:
        """Publishes a rendered view on the topics of ``camera``, as ``send`` does."""
        messages = messages_of(view)
        return self.send(frame_id, stamp, **{name: messages[name] for name in self.publishers})


def messages_of(view: RenderedView) -> dict[str, Any]:
    """What a camera that sees ``view`` sends: "color", "depth" and "info"."""
    lens = view.intrinsics
    k = [lens.fx, 0.0, lens.cx, 0.0, lens.fy, lens.cy, 0.0, 0.0, 1.0]
    return {
        "color": fill_image(Image(), view.rgb, "rgb8"),
        "depth": fill_image(Image(), view.depth_m, "32FC1"),
        "info": CameraInfo(width=lens.width, height=lens.height, k=k),
    }


def pixels_of(message: Image, kind: type = np.uint8) -> np.ndarray:
    """(H, W) or (H, W, C), of an image that the node published."""
    return np.frombuffer(message.data, kind).reshape(message.height, message.width, -1).squeeze()


def stamp_ns(message: Any) -> int:
    """The stamp of any output, nanoseconds."""
    header = message.markers[0].header if isinstance(message, MarkerArray) else message.header
    return Time.from_msg(header.stamp).nanoseconds
