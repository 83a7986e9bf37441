# SPDX-License-Identifier: Apache-2.0
"""The running nodes of a namespace as a source of the viewer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.client import Client
from rclpy.parameter import Parameter as RosParameter
from rclpy.parameter import parameter_value_to_python
from rclpy.publisher import Publisher
from std_msgs.msg import String

from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.nodes.common.qos import RELIABLE, SERVICE
from clip_seg_ros.nodes.common.statuses import MAX_ECHO
from clip_seg_ros.nodes.observers.asking import AGAIN_S, Asking, GivenUp
from clip_seg_ros.nodes.observers.camera_feed import CameraFeed
from clip_seg_ros.nodes.observers.node_watch import CONFIGS, PERIOD_S, NodeWatch, Served
from clip_seg_ros.nodes.observers.pointing_out import Pointing
from clip_seg_ros.nodes.observers.talker import status_event
from clip_seg_ros.settings import Parameter, parameters
from clip_seg_ros.viewer.models import model_choices
from clip_seg_ros.viewer.source import Event, Listener, Pointed, Refused
from clip_seg_ros.viewer.views import ModelChoice, View, Wanted

T = TypeVar("T")
_PATIENCE_S = 6.0
"""The time in seconds that parameters may take."""


class RosSource:
    """Shows and commands the node ``referring`` of a namespace, or ``semantic`` where there is no other.

    Whatever nobody wants is not subscribed to, so that the nodes need not make it. A node that ends and starts again is
    met again.

    Args:
        node: Node in that namespace, which somebody else spins, on one thread.
    """

    can_pause = False
    is_playing = True

    def __init__(self, node: Asking) -> None:
        self.title = node.get_namespace()
        self._node = node
        self._faults = FaultLog(node.get_logger().warning)
        self._listener: Listener | None = None
        self._watch: NodeWatch | None = None
        self._shown: Served | None = None
        """The node of ``_feeds``."""
        self._ended = threading.Event()
        self._wanted = Wanted()
        self._feeds: dict[str, CameraFeed] = {}
        self._newest: dict[str, View] = {}
        """The newest image of each camera."""
        self._publishers: dict[str, Publisher] = {}
        self._clients: dict[str, Client] = {}
        self._given: list[tuple[str, threading.Event]] = []
        """The texts of commands whose first status has not come yet."""
        self._model = ""
        self._pointing = Pointing(node, self._client, self._ended)

    # What the viewer calls first and last, on any thread.

    def start(self, listener: Listener) -> None:
        """Begins to look for nodes; they are shown once somebody wants it."""
        self._listener = listener
        self._on_spinner(self._begin)

    def stop(self) -> None:
        """Ends; whoever waits for an answer is refused."""
        if not self._ended.is_set():
            self._ended.set()
            self._on_spinner(self._close)

    def want(self, wanted: Wanted) -> None:
        """Subscribes to what is wanted soon, and gives up what was not wanted for a while."""
        self._wanted = wanted
        if self._node.executor is not None and not self._ended.is_set():
            self._node.executor.create_task(self._follow)

    def cameras(self) -> Sequence[str]:
        """Returns the names of the node's cameras."""
        watch = self._watch
        return watch.served.cameras if watch and watch.served else []

    def command(self, text: str) -> None:
        """Gives a command, and returns when the node has accepted or rejected it, which its status says."""
        served = self._served()
        echo, heard = text[:MAX_ECHO], threading.Event()
        self._given.append((echo, heard))
        try:
            with self._refusing():
                publisher = self._on_spinner(lambda: self._publisher(served.command_topic))
                for _ in range(2):  # a message may get lost while a node starts
                    publisher.publish(String(data=text))
                    if self._node.wait(heard.is_set, AGAIN_S, self._ended):
                        return
        finally:
            self._given.remove((echo, heard))
        raise Refused(f"{served.name} did not answer within {2 * AGAIN_S:g} s: it may be busy, or have ended")

    def parameters(self) -> Sequence[tuple[Parameter, Any]]:
        """Asks the node for its live parameters."""
        served = self._served()
        live = [each for each in parameters(CONFIGS[served.kind]) if each.live]
        request = GetParameters.Request(names=[each.name for each in live])
        response = self._call(served, GetParameters, f"{served.name}/get_parameters", request)
        if len(response.values) != len(live):
            raise Refused(f"{served.name} does not know all parameters of this version: start both anew")
        return [(each, _plain(each, parameter_value_to_python(value))) for each, value in zip(live, response.values)]

    def set_parameter(self, name: str, value: Any) -> None:
        """Changes a live parameter of the node."""
        served = self._served()
        known = {each.name: each for each in parameters(CONFIGS[served.kind]) if each.live}
        if name not in known:
            raise Refused(f"{name} is no parameter that may change while {served.name} runs")
        changed = RosParameter(name, value=_for_ros(known[name], value)).to_parameter_msg()
        request = SetParameters.Request(parameters=[changed])
        response = self._call(served, SetParameters, f"{served.name}/set_parameters", request)
        if not (response.results and response.results[0].successful):
            reason = response.results[0].reason if response.results else ""
            raise Refused(reason or f"{served.name} refuses {name} = {value!r}")

    def models(self) -> Sequence[ModelChoice]:
        """Returns the models of this machine's folders, where the node is expected to run."""
        watch = self._watch
        folder = watch.served.config.weights_dir if watch and watch.served else ""
        try:
            return model_choices(Path(folder).expanduser() if folder else None)
        except (OSError, RuntimeError) as error:
            raise Refused(str(error)) from error

    def point(self, camera: str, spot_px: Sequence[float], teach_as: str = "") -> Pointed:
        """Asks the service ``segment_at``, and where that is of use ``segment`` for a name."""
        served = self._served()
        if not isinstance(served.config, ReferringConfig):
            raise Refused(f"{served.name} cannot be asked what is there: start a node `referring`")
        if camera not in served.cameras:
            raise Refused(f'there is no camera "{camera}" at {served.name}')
        with self._refusing():
            view = self._newest.get(camera)
            return self._pointing.point(camera, spot_px, teach_as, view, served.config, self._model)

    def play(self, how: str) -> None:
        """Refuses: cameras go on."""
        raise Refused("cameras cannot be paused")

    # On the thread that spins the node.

    def _begin(self) -> None:
        self._watch = NodeWatch(self._node, self._faults, self._tell, self._on_served, self._on_rest)
        self._node.on_status = self._on_status
        self._timer = self._node.create_timer(PERIOD_S, self._tick)

    def _close(self) -> None:
        self._node.destroy_timer(self._timer)
        self._node.on_status = lambda status: None
        self._close_feeds()

    def _tick(self) -> None:
        self._watch.tick()
        self._follow()

    def _follow(self) -> None:
        if not self._ended.is_set():
            for feed in list(self._feeds.values()):
                feed.follow(self._wanted)

    def _on_served(self, served: Served | None) -> None:
        before, self._shown = self._shown, served
        if served is not None and before is not None and served.is_like(before):
            for feed in self._feeds.values():
                feed.config = served.config
            return
        self._close_feeds()
        for topics in served.config.cameras() if served else ():
            feed = CameraFeed(self._node, served.kind, topics, served.config, self._faults, self._show)
            self._feeds[topics.name] = feed
        self._follow()

    def _close_feeds(self) -> None:
        for feed in self._feeds.values():
            feed.close()
        self._feeds = {}
        self._newest = {}

    def _on_rest(self, camera: str) -> None:
        if camera in self._feeds:
            self._feeds[camera].rest()

    def _on_status(self, status: CommandStatus) -> None:
        if status.state in (CommandStatus.ACCEPTED, CommandStatus.REJECTED):
            for echo, heard in list(self._given):
                if echo == status.command:
                    heard.set()
        self._tell(status_event(status))

    def _show(self, view: View) -> None:
        if not self._ended.is_set():
            self._newest[view.camera] = view
            self._listener.show(view)

    def _tell(self, event: Event) -> None:
        if event["event"] == "model":
            self._model = event["name"]
        if not self._ended.is_set():
            self._listener.tell(event)

    # Helpers of the methods that wait.

    def _served(self) -> Served:
        if self._watch is None or self._ended.is_set():
            raise Refused("the view has not begun yet, or has ended")
        if self._watch.served is None:
            raise Refused(self._watch.why_gone)
        return self._watch.served

    def _on_spinner(self, do: Callable[[], T]) -> T:
        """Runs a function where the node is spun; at once, if nobody spins it yet."""
        return do() if self._node.executor is None else self._node.on_spinner(do)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except GivenUp as error:
            raise Refused("the view ends") from error

    def _publisher(self, topic: str) -> Publisher:
        if topic not in self._publishers:
            self._publishers[topic] = self._node.create_publisher(String, topic, RELIABLE)
        return self._publishers[topic]

    def _client(self, kind: type, name: str) -> Client:
        """Returns the client of a service; it may be called on any thread but the spinner's."""

        def make() -> Client:
            if name not in self._clients:
                self._clients[name] = self._node.create_client(kind, name, qos_profile=SERVICE)
            return self._clients[name]

        return self._on_spinner(make)

    def _call(self, served: Served, kind: type, name: str, request: Any) -> Any:
        with self._refusing():
            client = self._client(kind, name)
            self._node.meet(client.service_is_ready, self._ended)
            response = self._node.call(client, request, _PATIENCE_S, self._ended)
        if response is None:
            raise Refused(f"{served.name} did not answer within {_PATIENCE_S:g} s: it may be busy, or have ended")
        return response


def _plain(parameter: Parameter, value: Any) -> Any:
    return tuple(text for text in value or () if text) if parameter.type is tuple else value


def _for_ros(parameter: Parameter, value: Any) -> Any:
    """Returns a value in the type of a parameter; ROS knows no empty list.

    Raises:
        Refused: It is of another type.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if parameter.type is float and is_number:
        return float(value)
    if parameter.type is int and is_number and value == int(value):
        return int(value)
    if parameter.type is bool and isinstance(value, bool):
        return value
    if parameter.type is str and isinstance(value, str):
        return value
    if parameter.type is tuple and isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value):
        return [*value] or [""]
    kinds = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", tuple: "a list of texts"}
    raise Refused(f"{parameter.name} must be {kinds[parameter.type]}, got {value!r}")
