# SPDX-License-Identifier: Apache-2.0
"""Watches the nodes of a namespace: which one answers, what it says of itself, and when it is gone or back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import ParameterEvent
from rcl_interfaces.srv import GetParameters
from rclpy.client import Client
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import QoSProfile, qos_profile_parameter_events
from rclpy.task import Future

from clip_seg_ros.config import ReferringConfig, SegmentationConfig, SemanticConfig
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.nodes.common.qos import SERVICE
from clip_seg_ros.nodes.observers.asking import Asking
from clip_seg_ros.settings import parameters
from clip_seg_ros.viewer.source import Event

PERIOD_S = 0.5
"""The time between two looks at who is there; call ``tick`` so often."""
_FIRST_S = 5.0
"""The time in seconds that the first discovery may take until it is told that nobody is there."""
_DOUBT_S, _SILENCE_S = 3.0, 7.0
"""The time in seconds without a sign of a node after which it is asked whether it is there, and after which it is gone.
It says something of itself once a second; one that was killed is still listed for a while."""
_AGAIN_S = 2.0
CONFIGS: dict[str, type[SegmentationConfig]] = {"referring": ReferringConfig, "semantic": SemanticConfig}
"""The parameters of the nodes by their kinds, of which an earlier one is preferred."""
_LEVELS = {DiagnosticStatus.OK: "ok", DiagnosticStatus.WARN: "warn"}
_IDLE = "nothing to look for"


@dataclass(frozen=True)
class Served:
    """A node that answers."""

    name: str
    """Its full name."""
    kind: str
    """A key of ``CONFIGS``."""
    command_topic: str
    config: SegmentationConfig

    @property
    def cameras(self) -> list[str]:
        """The names of its cameras."""
        return [camera.name for camera in self.config.cameras()]

    def is_like(self, other: Served) -> bool:
        """Returns whether another one has the same name and topics, so that only live parameters may differ."""
        mine, theirs = ((each.name, each.kind, each.command_topic) for each in (self, other))
        fixed = [each.name for each in parameters(CONFIGS[self.kind]) if not each.live]
        return mine == theirs and all(getattr(self.config, name) == getattr(other.config, name) for name in fixed)


@dataclass(frozen=True)
class _Announced:
    """An active node that is listed, whether it answers or not."""

    kind: str
    name: str
    command_topic: str
    ids: frozenset[bytes]
    """Of its announcements; one that was started anew has another one."""

    def rank(self) -> int:
        return list(CONFIGS).index(self.kind)


class NodeWatch:
    """Meets a node of the namespace whenever there is one. Its methods run on the thread that spins the node.

    Args:
        node: Node that looks, in the namespace of the nodes to look for.
        faults: Log of what is wrong with messages.
        tell: Called with the events ``gone``, ``back``, ``cameras``, ``parameter``, ``model`` and ``health``.
        on_served: Called with the node that answers when that changes, or its parameters do; ``None``: none does.
        on_rest: Called with the name of a camera whose images are not answered.
    """

    def __init__(
        self,
        node: Asking,
        faults: FaultLog,
        tell: Callable[[Event], None],
        on_served: Callable[[Served | None], None],
        on_rest: Callable[[str], None],
    ) -> None:
        self._node, self._faults, self._tell, self._on_served, self._on_rest = node, faults, tell, on_served, on_rest
        self.served: Served | None = None
        self.why_gone = f"no node of {node.get_namespace()} has been met yet: try again in a moment"
        """What is missing, and what to do."""
        self._is_told_gone = False
        self._begun_s = time.monotonic()
        self._heard_s = -float("inf")
        self._ids: frozenset[bytes] = frozenset()
        self._last_kind = self._last_model = ""
        self._last_values: dict[str, Any] = {}
        self._last_cameras: list[str] | None = None
        self._asked: dict[str, tuple[float, Client, Future]] = {}
        self._clients: dict[str, Client] = {}
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, QoSProfile(depth=50))
        node.create_subscription(ParameterEvent, "/parameter_events", self._on_parameters, qos_profile_parameter_events)

    def tick(self) -> None:
        """Looks who is there."""
        now_s, found = time.monotonic(), self._announced()
        if self.served is not None:
            is_listed = any(each.name == self.served.name for each in found)
            if not is_listed or now_s - self._heard_s > _SILENCE_S:
                self._lose()
        elif not self._is_told_gone and now_s - self._begun_s > _FIRST_S:
            self._lose()
        for each in found:
            if self._is_to_ask(each, now_s):
                self._ask(each, now_s)

    def _announced(self) -> list[_Announced]:
        """Returns the active nodes of the namespace that are listed, the preferred ones first."""
        found: dict[tuple[str, str, str], set[bytes]] = {}
        for topic, _ in self._node.get_topic_names_and_types():
            command_topic, _, last = topic.rpartition("/")
            if last[:1] != "_" or last[1:] not in CONFIGS:
                continue
            for each in self._node.get_publishers_info_by_topic(topic):
                if each.node_namespace == self._node.get_namespace():
                    name = f"{each.node_namespace.rstrip('/')}/{each.node_name}"
                    found.setdefault((last[1:], name, command_topic), set()).add(bytes(each.endpoint_gid))
        return sorted((_Announced(*key, frozenset(ids)) for key, ids in found.items()), key=_Announced.rank)

    def _is_to_ask(self, found: _Announced, now_s: float) -> bool:
        served = self.served
        if found.name in self._asked and now_s - self._asked[found.name][0] < _AGAIN_S:
            return False
        if served is None:
            return True
        if served.name == found.name:
            return not found.ids <= self._ids or now_s - self._heard_s > _DOUBT_S
        return found.rank() < list(CONFIGS).index(served.kind)

    def _ask(self, found: _Announced, now_s: float) -> None:
        if found.name in self._asked:
            _, client, future = self._asked.pop(found.name)
            client.remove_pending_request(future)
        client = self._clients.get(found.name)
        if client is None:
            service = f"{found.name}/get_parameters"
            client = self._clients[found.name] = self._node.create_client(GetParameters, service, qos_profile=SERVICE)
        if client.service_is_ready():
            names = [each.name for each in parameters(CONFIGS[found.kind])]
            future = client.call_async(GetParameters.Request(names=names))
            self._asked[found.name] = (now_s, client, future)
            future.add_done_callback(lambda done: self._on_answer(found, names, done))

    def _on_answer(self, found: _Announced, names: Sequence[str], future: Future) -> None:
        self._asked.pop(found.name, None)
        served = self.served
        if served is not None and served.name != found.name and found.rank() >= list(CONFIGS).index(served.kind):
            return  # a better one answered meanwhile
        response = future.result()
        if response is None or len(response.values) != len(names):
            note = f"{found.name} lacks parameters of this version: start a node of the same version as this one"
            self._faults.report("node", "parameters", note)
            return
        values = dict(zip(names, map(parameter_value_to_python, response.values)))
        try:
            config = CONFIGS[found.kind].from_mapping(values)
        except ValueError as error:
            self._faults.report("node", str(error), f"the parameters of {found.name} are not understood: {error}")
            return
        self._heard_s = time.monotonic()
        is_new = self.served is None or self.served.name != found.name or not found.ids <= self._ids
        self._ids = found.ids
        if is_new:
            self._meet(Served(found.name, found.kind, found.command_topic, config))

    def _meet(self, served: Served) -> None:
        self.served = served
        if served.cameras != self._last_cameras:
            self._last_cameras = served.cameras
            self._tell({"event": "cameras", "cameras": served.cameras})
        before = self._last_values if served.kind == self._last_kind else {}
        self._last_kind, self._last_values = served.kind, _live_values(served.config)
        for name, value in self._last_values.items():
            if name in before and before[name] != value:
                self._tell({"event": "parameter", "name": name, "value": value})
        self._is_told_gone = False
        self._on_served(served)
        self._tell({"event": "back", "message": f"{served.name} answers"})

    def _lose(self) -> None:
        if self.served is not None:
            self.served = None
            self._on_served(None)
        self._is_told_gone = True
        self.why_gone = self._missing()
        self._tell({"event": "gone", "message": self.why_gone})

    def _missing(self) -> str:
        namespace = self._node.get_namespace()
        nobody = self._node.nobody()
        announced = {each.name.rpartition("/")[2] for each in self._announced()}
        waiting = {each.node_name for each in self._node.get_publishers_info_by_topic(nobody.topic)} - announced
        if waiting:
            name = f"{namespace.rstrip('/')}/{min(waiting)}"
            return f"{name} is not active: ros2 lifecycle set {name} activate"
        option = "" if namespace == "/clip_seg" else f" namespace:={namespace}"
        others = [topic.rpartition("/")[0] or "/" for topic in nobody.others if topic != nobody.topic]
        hint = f"; there are nodes in {', '.join(others)}" if others else ""
        return f"no node answers in {namespace}: ros2 launch clip_seg_ros seg.launch.py{option}{hint}"

    # What nodes say of themselves.

    def _on_parameters(self, event: ParameterEvent) -> None:
        served = self.served
        if served is None or event.node != served.name:
            return
        live = {each.name for each in parameters(CONFIGS[served.kind]) if each.live}
        changed = [*event.new_parameters, *event.changed_parameters]
        values = {each.name: parameter_value_to_python(each.value) for each in changed if each.name in live}
        try:
            config = replace(served.config, **_fields(CONFIGS[served.kind].from_mapping(values), values))
        except ValueError as error:  # of a node of another version
            self._faults.report("node", str(error), f"a parameter of {served.name} is not understood: {error}")
            return
        self.served = replace(served, config=config)
        self._last_values = _live_values(config)
        self._on_served(self.served)
        for name in values:
            self._tell({"event": "parameter", "name": name, "value": self._last_values[name]})

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        served = self.served
        begin = f"{served.name.strip('/')}: " if served is not None else ""
        statuses = [each for each in message.status if begin and each.name.startswith(begin)]
        if served is None or not statuses:
            return
        self._heard_s = time.monotonic()
        values = {"node": served.name}
        for status in statuses:
            what = status.name.removeprefix(begin)
            values |= _table(what, status)
            if what.startswith("camera") and status.message == _IDLE:
                self._on_rest(what.removeprefix("camera").strip())
        model = values.get("model", "")
        if model and model != self._last_model:
            self._last_model = model
            self._tell({"event": "model", "name": model})
        worst = max(statuses, key=lambda each: each.level)
        level = _LEVELS.get(worst.level, "error")
        self._tell({"event": "health", "level": level, "message": worst.message, "values": values})


def _table(what: str, status: DiagnosticStatus) -> dict[str, str]:
    """Returns what a status says, with the name of the camera before each entry where cameras have names."""
    values = {each.key: each.value for each in status.values}
    if not what.startswith("camera"):
        return values
    camera = what.removeprefix("camera").strip()
    values = {"images": status.message, **values}
    return {f"{camera}: {key}": value for key, value in values.items()} if camera else values


def _live_values(config: SegmentationConfig) -> dict[str, Any]:
    return {each.name: getattr(config, each.name) for each in parameters(type(config)) if each.live}


def _fields(config: SegmentationConfig, names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names}
