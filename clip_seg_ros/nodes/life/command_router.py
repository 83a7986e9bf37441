# SPDX-License-Identifier: Apache-2.0
"""Receives text commands, parses them and passes them to the node that they are for."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.publisher import Publisher
from std_msgs.msg import String

from clip_seg_ros.commands.parser import Command, CommandError, parse_command
from clip_seg_ros.nodes.common.qos import LATCHED, RELIABLE
from clip_seg_ros.nodes.common.statuses import StatusTopic

KINDS = ("referring", "semantic")
"""The kinds of nodes that may answer the commands of one topic."""


class CommandRouter:
    """Listens to the command topic, rejects commands that cannot be carried out and passes on the others.

    Several nodes may listen to one topic. While a node is active, it announces itself by a publisher on a hidden topic
    below the command topic, such as "/clip_seg/command/_referring". The others thus know whether a node of that kind is
    active, whatever its name is.

    Args:
        node: Node that subscribes.
        kind: Kind of the node, one of ``KINDS``.
        status: Topic of the answers.
        is_active: Returns whether the node is active.
        is_mine: Returns whether this node answers a command; ``None`` stands for a text that could not be parsed.
        fault_of: Returns why a command cannot be carried out now; empty if it can.
        obey: Called with the id, the text and the parsed form of every other command, one at a time.
    """

    def __init__(
        self,
        node: Node,
        kind: str,
        status: StatusTopic,
        is_active: Callable[[], bool],
        is_mine: Callable[[Command | None], bool],
        fault_of: Callable[[Command | None], str],
        obey: Callable[[int, str, Command], None],
    ) -> None:
        self._node, self._kind, self._status, self._is_active = node, kind, status, is_active
        self._is_mine, self._fault_of, self._obey = is_mine, fault_of, obey
        self._announcement: Publisher | None = None
        # The node itself may give a command while another one arrives.
        self._lock = threading.RLock()

    def open(self, topic: str, group: CallbackGroup) -> None:
        """Listens to a topic.

        Args:
            topic: Name of the topic.
            group: Callback group of the subscription.
        """
        self.subscription = self._node.create_subscription(
            String, topic, self._on_message, RELIABLE, callback_group=group
        )

    def close(self) -> None:
        """Ends the subscription."""
        self._node.destroy_subscription(self.subscription)

    def announce(self) -> None:
        """Tells other nodes on the topic that this one is active."""
        self._announcement = self._node.create_publisher(String, self._topic_of(self._kind), LATCHED)
        self._announcement.publish(String(data=self._node.get_fully_qualified_name()))

    def withdraw(self) -> None:
        """Tells other nodes that this one is not active any more."""
        if self._announcement is not None:
            self._node.destroy_publisher(self._announcement)
            self._announcement = None

    def runs_beside(self, kind: str) -> bool:
        """Returns whether a node of another ``kind`` that listens to the same commands is active."""
        return self._node.count_publishers(self._topic_of(kind)) > 0

    def give(self, text: str) -> None:
        """Answers a command that is for this node as if it had arrived on the topic."""
        command, fault = _understood(text)
        self._answer(text, command, fault)

    def _topic_of(self, kind: str) -> str:
        return f"{self.subscription.topic_name}/_{kind}"

    def _on_message(self, message: String) -> None:
        command, fault = _understood(message.data)
        others = [kind for kind in KINDS if kind != self._kind]
        # A node that is not active says so only if no other node answers.
        if self._is_mine(command) and (self._is_active() or not any(map(self.runs_beside, others))):
            self._answer(message.data, command, fault)

    def _answer(self, text: str, command: Command | None, fault: str) -> None:
        with self._lock:
            command_id = self._status.next_id()
            fault = self._fault_of(command) or fault
            if fault:
                self._status.reject(command_id, text, fault)
            else:
                self._obey(command_id, text, command)


def example_command(namespace: str, topic: str) -> str:
    """Returns a shell command that, on this machine, sends a text command to a node in ``namespace``, on ``topic``."""
    if shutil.which("ros2"):
        return f"ros2 topic pub --once {topic} std_msgs/msg/String \"{{data: 'segment the red cup'}}\""
    options = "" if namespace == "/clip_seg" else f"--namespace {namespace} "
    options += "" if topic == f"{namespace}/command" else f"--topic {topic} "
    return f'clip-seg say {options}"segment the red cup"'


def _understood(text: str) -> tuple[Command | None, str]:
    """Returns the parsed command and "", or ``None`` and the reason why the text is not a command."""
    try:
        return parse_command(text), ""
    except CommandError as error:
        return None, str(error)
