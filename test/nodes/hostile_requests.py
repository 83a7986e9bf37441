# SPDX-License-Identifier: Apache-2.0
"""Parameter messages, service calls and goals with nonsense in them, which nobody waits for."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from builtin_interfaces.msg import Duration
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters, SetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, RegionOfInterest

from clip_seg_ros.action import FindObject
from clip_seg_ros.srv import ListPrompts, RemovePrompt, Segment, SegmentAt, SetImagePrompt
from goal_client import GoalClient
from hostile_messages import HostileMessages
from ros_harness import wait_until

UNDER_WAY = 16
"""Calls at once; what more would come is left out."""


class HostileRequests:
    """Sends one request after another.

    Args:
        node: Node of the clients; somebody spins it.
        target: "referring" or "semantic", in the node's namespace.
        messages: Maker of images and texts.
        parameters: What may be set while the node runs, and the proper values.
        seed: Of the random numbers.
    """

    def __init__(
        self, node: Node, target: str, messages: HostileMessages, parameters: Mapping[str, Any], seed: int
    ) -> None:
        self._random, self._messages, self._proper = random.Random(seed), messages, dict(parameters)
        self._futures: list[Any] = []
        self._set = node.create_client(SetParameters, f"{target}/set_parameters")
        self._clients: list[tuple[Client, Any]] = [
            (self._set, self._parameters),
            (node.create_client(GetParameters, f"{target}/get_parameters"), self._names(GetParameters)),
            (node.create_client(DescribeParameters, f"{target}/describe_parameters"), self._names(DescribeParameters)),
            (node.create_client(ListParameters, f"{target}/list_parameters"), self._prefixes),
        ]
        self._action = self._remove = self._list = None
        if target == "referring":
            self._remove, self._list = (
                node.create_client(RemovePrompt, "remove_prompt"),
                node.create_client(ListPrompts, "list_prompts"),
            )
            self._clients += [
                (node.create_client(Segment, "segment"), self._segment),
                (node.create_client(SegmentAt, "segment_at"), self._segment_at),
                (node.create_client(SetImagePrompt, "set_image_prompt"), self._image_prompt),
                (self._remove, lambda: RemovePrompt.Request(name=self._text())),
                (self._list, ListPrompts.Request),
            ]
            self._action = GoalClient(node, FindObject, "find_object")

    def send(self) -> None:
        """Sends one request, unless too many are under way."""
        self._futures = [future for future in self._futures if not future.done()]
        if len(self._futures) >= UNDER_WAY:
            self._futures.pop(0).cancel()
        if self._action is not None and self._random.random() < 0.2:
            if self._action.server_is_ready():
                self._futures.append(self._action.send_goal_async(self._goal()))
            return
        client, request = self._random.choice(self._clients)
        if client.service_is_ready():
            self._futures.append(client.call_async(request()))

    def send_images(self, count: int) -> None:
        """Sends so many requests at once to each service that takes an image."""
        for client, request in self._clients:
            if client.srv_type in (Segment, SegmentAt, SetImagePrompt):
                wait_until(client.service_is_ready, client.srv_name)
                for _ in range(count):
                    client.call_async(request())

    def put_right(self) -> None:
        """Sets all parameters back, removes all image prompts and waits until that is done.

        A node keeps the examples that it is given, up to a limit: their memory is no leak.
        """
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in self._proper.items()]
        results = self._answered(self._set, SetParameters.Request(parameters=parameters)).results
        assert all(result.successful for result in results), [result.reason for result in results]
        if self._list is not None and self._remove is not None:
            for name in self._answered(self._list, ListPrompts.Request()).names:
                removed = self._answered(self._remove, RemovePrompt.Request(name=name))
                assert removed.success, removed.message

    def _answered(self, client: Client, request: Any) -> Any:
        """Calls a service and returns its response."""
        wait_until(client.service_is_ready, client.srv_name)
        future = client.call_async(request)
        return wait_until(lambda: future.done() and future.result(), client.srv_name)

    def _text(self) -> str:
        return self._messages.text()

    def _parameters(self) -> SetParameters.Request:
        pick = self._random
        names = [*self._proper, "model", "device", "use_sim_time2", "", "command_topic", self._text()]
        value = ParameterValue(
            type=pick.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 77)),
            bool_value=pick.random() < 0.5,
            integer_value=pick.choice((0, -1, 2**63 - 1, -(2**63))),
            string_value=self._text(),
            double_value=pick.choice((0.0, 0.5, -1.0, 1e308, float("nan"), float("inf"))),
            byte_array_value=[b"\x00"] * 5,
            string_array_value=[self._text(), self._messages.phrase()],
        )
        chosen = [pick.choice(names) for _ in range(pick.choice((0, 1, 1, 2, 50)))]
        return SetParameters.Request(parameters=[ParameterMessage(name=name, value=value) for name in chosen])

    def _names(self, kind: type) -> Any:
        return lambda: kind.Request(names=[self._random.choice((*self._proper, self._text())) for _ in range(3)])

    def _prefixes(self) -> ListParameters.Request:
        return ListParameters.Request(prefixes=[self._text()], depth=self._random.choice((0, 1, 2**64 - 1)))

    def _segment(self) -> Segment.Request:
        pick = self._random
        return Segment.Request(
            image=self._messages.image("rgb8"),
            threshold=pick.choice((0.0, 0.5, -1.0, 2.0, float("nan"))),
            prompts=[pick.choice(("red cup", self._text())) for _ in range(pick.choice((0, 1, 2, 17)))],
            negatives=[self._text() for _ in range(pick.choice((0, 0, 1, 300)))],
        )

    def _box(self) -> RegionOfInterest:
        sides = [self._random.choice((0, 0, 7, 40, 2**32 - 1)) for _ in range(4)]
        return RegionOfInterest(x_offset=sides[0], y_offset=sides[1], width=sides[2], height=sides[3])

    def _segment_at(self) -> SegmentAt.Request:
        pick, places = self._random, (0.0, 5.5, -3.0, 1e308, float("nan"), float("inf"))
        return SegmentAt.Request(
            camera=pick.choice(("", "", self._text())),
            image=pick.choice((Image(), self._messages.image("rgb8"))),
            x=pick.choice(places),
            y=pick.choice(places),
            box=self._box(),
            alike=pick.random() < 0.2,
            unlike=[self._box() for _ in range(pick.choice((0, 0, 1, 100)))],
            teach_as=pick.choice(("", "thing", self._messages.phrase())),
        )

    def _image_prompt(self) -> SetImagePrompt.Request:
        pick = self._random
        # With an empty mask most are taken, and few names make them replace each other.
        name, mask = pick.choice(
            (("old mug", Image()), ("thing", Image()), (self._messages.phrase(), self._messages.image("mono8")))
        )
        return SetImagePrompt.Request(
            name=name,
            image=self._messages.image("rgb8"),
            mask=mask,
            text=pick.choice(("", "cup", self._messages.phrase())),
            text_weight=pick.choice((0.0, 0.5, 7.0, float("nan"))),
        )

    def _goal(self) -> FindObject.Goal:
        pick = self._random
        timeout = Duration(sec=pick.choice((0, 1, -1, -(2**31))), nanosec=pick.choice((0, 10**8, 2**32 - 1)))
        return FindObject.Goal(
            phrase=pick.choice(("red cup", "", self._messages.phrase())),
            timeout=timeout,
            camera=pick.choice(("", "", self._text())),
        )
