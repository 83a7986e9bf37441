# SPDX-License-Identifier: Apache-2.0
"""The questions that ``clip-seg mcp`` asks of the nodes, and their answers as plain values."""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from builtin_interfaces.msg import Time as Stamp
from rcl_interfaces.srv import GetParameters
from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.duration import Duration
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import QoSProfile
from rclpy.task import Future
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image

from clip_seg_ros.action import FindObject
from clip_seg_ros.commands.parser import CommandError, parse_command, parse_reference
from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.msg import RememberedObject, SegmentedObject, SegmentedObjectArray
from clip_seg_ros.nodes.camera.conversions import ConversionError
from clip_seg_ros.nodes.common.qos import ACTION, IMAGE_INPUT, RELIABLE, SERVICE
from clip_seg_ros.nodes.observers.asking import AGAIN_S, SETTLE_S, Asking, Unanswered
from clip_seg_ros.nodes.observers.listening import as_jpeg, objects_of_prompts, overlay_topic
from clip_seg_ros.nodes.observers.talker import object_values, objects_event
from clip_seg_ros.srv import Recall

_MARGIN_S = 5.0
"""The time in seconds after its own timeout in which the result of a goal must arrive."""
_OUTCOME = ("found", "not found")
_IN_VAIN = re.compile(r": not found within \S+ s; (\d+) images")
"""What the node says of a goal whose time was up; every other goal that found nothing was refused or failed."""
_EMPTY = 'a phrase is empty: name what to look for, for example "red cup"'
_DESCRIBE = "what do you see?"
_Kind = tuple[type, QoSProfile]
_CAMERA_PARAMETERS = ("image_topic", "image_topics", "camera_names", "image_transport")


class Questions(Asking):
    """Answers each question as a dictionary of plain values. A question takes its time limit in seconds."""

    def __init__(self, namespace: str, topic: str, use_sim_time: bool = False) -> None:
        super().__init__(namespace, topic, use_sim_time)
        qos = ("goal_service_qos_profile", "result_service_qos_profile", "cancel_service_qos_profile")
        self._goals = ActionClient(self, FindObject, "find_object", **dict.fromkeys(qos, ACTION))
        self._recall = self.create_client(Recall, "recall", qos_profile=SERVICE)
        self._parameter_clients: dict[str, Any] = {}

    def command(self, given_up: threading.Event, text: str, timeout_s: float) -> dict[str, Any]:
        """Gives a command and returns its statuses."""
        with self.my_turn(timeout_s):
            return {"statuses": self.give(text, timeout_s, given_up)}

    def describe(self, given_up: threading.Event, timeout_s: float) -> dict[str, Any]:
        """Asks what one image holds, and returns the last status."""
        with self.my_turn(timeout_s):
            return self.give(_DESCRIBE, timeout_s, given_up)[-1]

    def find(
        self, given_up: threading.Event, phrase: str, timeout_s: float, max_age_s: float, camera: str
    ) -> dict[str, Any]:
        """Looks for a thing until it is seen, and returns where it is, or that it was not found in time.

        Raises:
            Nobody: No node offers the action.
            Unanswered: The phrase makes no sense, the node refuses, no image came, or the node ended meanwhile.
        """
        _check_phrase(phrase)
        if not self.meet(self._goals.server_is_ready, given_up):
            raise self.nobody()
        goal = FindObject.Goal(phrase=phrase, camera=camera)
        goal.timeout = Duration(nanoseconds=int(timeout_s * 1e9)).to_msg()
        goal.max_age = Duration(nanoseconds=int(max_age_s * 1e9)).to_msg()
        result: FindObject.Result = self._result_of(goal, timeout_s, given_up)
        if not result.found:
            in_vain = _IN_VAIN.search(result.message)
            if in_vain is None:
                raise Unanswered(result.message)
            if in_vain[1] == "0":
                raise Unanswered(f"{result.message}; no image came: does a camera send any?")
            return {"found": False, "message": result.message, "images": int(in_vain[1])}
        return {
            "found": True,
            "message": result.message,
            "camera": result.camera,
            "remembered": result.remembered,
            "age_s": self._age_s(result.header.stamp),
            "frame": result.header.frame_id,
            **_thing(result.object),
        }

    def _result_of(self, goal: FindObject.Goal, timeout_s: float, given_up: threading.Event) -> FindObject.Result:
        handles: list[ClientGoalHandle] = []
        results: list[Any] = []

        def accepted(future: Future) -> None:
            handles.append(future.result())
            handles[-1].get_result_async().add_done_callback(lambda ended: results.append(ended.result().result))

        def send() -> None:
            self._goals.send_goal_async(goal).add_done_callback(accepted)

        self.on_spinner(send)
        try:
            if not self.wait(lambda: handles, AGAIN_S, given_up):
                self.on_spinner(send)
            over = lambda: results or not self._goals.server_is_ready()  # noqa: E731
            if not self.wait(over, timeout_s + _MARGIN_S, given_up):
                raise Unanswered(f"the node did not answer within {timeout_s + _MARGIN_S:g} s")
            if not results:
                raise Unanswered("the node ended while it was looking: start it again, and ask again")
            return results[0]
        finally:
            if not results:
                self.on_spinner(lambda: [handle.cancel_goal_async() for handle in handles])

    def segment(
        self, given_up: threading.Event, phrases: Sequence[str], timeout_s: float, camera: str, picture: bool
    ) -> dict[str, Any]:
        """Makes the nodes look for phrases from now on, and returns the objects of the first image that is answered.

        Raises:
            Nobody: No node is there.
            Unanswered: The node refuses the phrases, there is no such camera, or no image was answered in time.
        """
        text = _sentence(phrases)
        deadline_s = time.monotonic() + timeout_s
        with self.my_turn(timeout_s):
            self.meet_commanded(given_up)
            objects = self._topics_of(camera, given_up)
            topics = dict.fromkeys(objects, (SegmentedObjectArray, RELIABLE))
            overlays = map(overlay_topic, objects if picture else ())
            with self._hearing(topics | dict.fromkeys(overlays, (CompressedImage, RELIABLE)), given_up):
                statuses = self.give(text, max(0.1, deadline_s - time.monotonic()), given_up)
                outcome = next(each for each in reversed(statuses) if each["state"] in _OUTCOME)
                patience_s = max(_MARGIN_S, deadline_s - time.monotonic())
                found = self.wait(lambda: self._seen(objects, outcome, picture), patience_s, given_up)
        if not found:
            raise Unanswered("the command was carried out, but the objects did not arrive: ask again")
        message, overlay = found[0]
        values = objects_event(message) | {"objects": [_thing(item) for item in message.objects]}
        values |= {"message": outcome["message"], "age_s": self._age_s(message.header.stamp)}
        return values | ({"picture": _picture(overlay)} if picture else {})

    def _seen(self, topics: Sequence[str], outcome: dict[str, Any], picture: bool) -> list[tuple[Any, Any]]:
        """Returns the objects that answer a command, each with its overlay, or with ``None`` without ``picture``."""
        pairs: list[tuple[Any, Any]] = []
        for topic in topics:
            overlays = dict(self.listening.messages(overlay_topic(topic))) if picture else {}
            answers = objects_of_prompts(self.listening.messages(topic), outcome["prompts"], outcome["stamp_ns"])
            pairs += [(message, overlays.get(stamp)) for stamp, message in answers if not picture or stamp in overlays]
        return pairs

    def look(self, given_up: threading.Event, overlay: bool, camera: str, timeout_s: float) -> dict[str, Any]:
        """Returns the next picture of a camera, as it is or with the objects drawn on it.

        Raises:
            Nobody: No node is there.
            Unanswered: There is no such camera, no picture came in time, or it cannot be read.
        """
        self.meet_commanded(given_up)
        if overlay:
            overlays = map(overlay_topic, self._topics_of(camera, given_up))
            topics: dict[str, _Kind] = dict.fromkeys(overlays, (CompressedImage, RELIABLE))
        else:
            topics = self._camera_topic(camera, timeout_s, given_up)
        with self._hearing(topics, given_up):
            before = {topic: self.listening.count(topic) for topic in topics}

            def news() -> list[Any]:
                new = [topic for topic in topics if self.listening.count(topic) > before[topic]]
                return [self.listening.messages(topic)[-1][1] for topic in new]

            shown = self.wait(news, timeout_s, given_up)
        if not shown:
            hint = "has the node something to look for (the tool segment), and " if overlay else ""
            where = ", ".join(topics)
            raise Unanswered(f"no picture came within {timeout_s:g} s on {where}: {hint}does a camera send any?")
        header = shown[0].header
        return {"frame": header.frame_id, "age_s": self._age_s(header.stamp), "picture": _picture(shown[0])}

    def _camera_topic(self, camera: str, timeout_s: float, given_up: threading.Event) -> dict[str, _Kind]:
        """Returns the topic of a camera's images, from which the node reads them, with its type."""
        infos = self.get_publishers_info_by_topic(self._status.topic_name)
        name = f"{infos[0].node_namespace.rstrip('/')}/{infos[0].node_name}/get_parameters"
        client = self._parameter_clients.get(name)
        if client is None:
            client = self.on_spinner(lambda: self.create_client(GetParameters, name, qos_profile=SERVICE))
            self._parameter_clients[name] = client
        self.meet(client.service_is_ready, given_up)
        response = self.call(client, GetParameters.Request(names=list(_CAMERA_PARAMETERS)), timeout_s, given_up)
        if response is None or len(response.values) != len(_CAMERA_PARAMETERS):
            raise Unanswered(f"the node did not say within {timeout_s:g} s which camera it looks at ({name})")
        values = dict(zip(_CAMERA_PARAMETERS, map(parameter_value_to_python, response.values)))
        lists = {key: tuple(filter(None, values[key] or ())) for key in ("image_topics", "camera_names")}
        cameras = {each.name: each.image for each in ReferringConfig(**(values | lists)).cameras()}
        if camera and camera not in cameras:
            raise _no_camera(camera, cameras)
        topic = cameras.get(camera, next(iter(cameras.values())))
        topic = topic if topic.startswith("/") else f"{infos[0].node_namespace.rstrip('/')}/{topic}"
        if values["image_transport"] == "compressed":
            return {f"{topic}/compressed": (CompressedImage, IMAGE_INPUT)}
        return {topic: (Image, IMAGE_INPUT)}

    def recall(self, given_up: threading.Event, phrase: str, max_age_s: float, timeout_s: float) -> dict[str, Any]:
        """Asks what the node remembers, and returns it, the best first.

        Raises:
            Nobody: No node is there.
            Unanswered: The node has no memory, or refuses.
        """
        if not self._recall.service_is_ready():
            self.meet_commanded(given_up)
        if not self.meet(self._recall.service_is_ready, given_up):
            raise Unanswered(
                f"the node remembers nothing: there is no service {self._recall.srv_name}. Its memory must be switched "
                "on when it is started; the tool find looks for a thing in what the cameras show now"
            )
        request = Recall.Request(phrase=phrase, max_age=Duration(nanoseconds=int(max_age_s * 1e9)).to_msg())
        response = self.call(self._recall, request, timeout_s, given_up)
        if response is None:
            raise Unanswered(f"the node did not answer within {timeout_s:g} s")
        if not response.success:
            raise Unanswered(response.message)
        now = Time.from_msg(response.header.stamp)
        things = [_remembered(item, now) for item in response.objects]
        return {"message": response.message, "frame": response.header.frame_id, "things": things}

    def _topics_of(self, camera: str, given_up: threading.Event) -> list[str]:
        """Returns the topics of objects of one camera, or of all of them if ``camera`` is empty."""
        cameras = self.wait(self.listening.cameras, AGAIN_S, given_up) or {}
        if not cameras:
            raise Unanswered("no active node `referring` is there: is it activated, or is there only a `semantic` one?")
        if camera and camera not in cameras:
            raise _no_camera(camera, cameras)
        return [cameras[camera]] if camera else list(cameras.values())

    @contextmanager
    def _hearing(self, topics: Mapping[str, _Kind], given_up: threading.Event) -> Iterator[None]:
        """Subscribes to topics, each with its type and its quality of service, until the block is left."""
        if all(self.on_spinner(lambda: [self.listening.open(topic, *kind) for topic, kind in topics.items()])):
            settle_s = 0.0
        else:
            self.wait(lambda: self.listening.is_connected(list(topics)), AGAIN_S, given_up)
            settle_s = SETTLE_S
        try:
            self.wait(lambda: False, settle_s, given_up)
            yield
        finally:
            self.listening.leave(list(topics))

    def _age_s(self, stamp: Stamp) -> float:
        return round((self.get_clock().now() - Time.from_msg(stamp)).nanoseconds * 1e-9, 3)


def _check_phrase(phrase: str) -> None:
    """Refuses what the language of commands would: the action takes it for a name, and looks for it in vain.

    Raises:
        Unanswered: The phrase is empty, is several ones, or says where a thing is in a way that makes no sense.
    """
    if not phrase.strip():
        raise Unanswered(_EMPTY)
    try:
        parse_reference(f"segment {phrase}")
    except CommandError as error:
        raise Unanswered(str(error)) from error


def _sentence(phrases: Sequence[str]) -> str:
    """Returns the command that looks for phrases.

    Raises:
        Unanswered: A phrase is empty, or together they are another command.
    """
    if not phrases or not all(phrase.strip() for phrase in phrases):
        raise Unanswered(_EMPTY)
    text = "segment " + ", ".join(phrase.strip() for phrase in phrases)
    try:
        verb = parse_command(text).verb
    except CommandError:  # the node says why
        return text
    if verb != "segment":
        raise Unanswered(f'"{text}" is the command "{verb}", and no list of things: give it with the tool command')
    return text


def _no_camera(camera: str, cameras: Sequence[str] | dict[str, Any]) -> Unanswered:
    known = f"the cameras are {', '.join(cameras)}" if any(cameras) else "the only camera has no name, leave it empty"
    return Unanswered(f'there is no camera "{camera}": {known}')


def _picture(message: Any) -> dict[str, Any]:
    try:
        data, width, height = as_jpeg(message)
    except ConversionError as error:
        raise Unanswered(f"the picture cannot be read: {error}") from error
    return {"jpeg": base64.b64encode(data).decode(), "width_px": width, "height_px": height}


def _thing(item: SegmentedObject) -> dict[str, Any]:
    """Returns an object as plain values; what a remembered one has no more, its pixels, is ``None``."""
    values = object_values(item) | {"size_m": _xyz(item.box_size) if item.has_box else None}
    return values if item.area else values | dict.fromkeys(("box_px", "centroid_px", "area_px"))


def _xyz(vector: Any) -> list[float]:
    return [round(value, 4) for value in (vector.x, vector.y, vector.z)]


def _remembered(item: RememberedObject, now: Time) -> dict[str, Any]:
    return {
        "id": item.id,
        "phrase": item.phrase,
        "camera": item.camera,
        "score": round(item.score, 4),
        "sightings": item.sightings,
        "first_seen_s_ago": round((now - Time.from_msg(item.first_seen)).nanoseconds * 1e-9, 1),
        "last_seen_s_ago": round((now - Time.from_msg(item.last_seen)).nanoseconds * 1e-9, 1),
        "position_m": _xyz(item.position),
        "size_m": _xyz(item.box_size) if item.has_box else None,
        "jpeg": base64.b64encode(bytes(item.view.data)).decode(),
    }
