"""Text commands: heard, understood, and given to the node that they are for."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from rclpy.node import Node
from std_msgs.msg import String

from clip_seg_ros.commands import Command, CommandError, parse_command
from clip_seg_ros.nodes.qos import RELIABLE
from clip_seg_ros.nodes.statuses import StatusTopic


class CommandRouter:
    """Listens to the command topic, rejects what cannot be done and hands on the rest.

    Args:
        node: Node of the subscription.
        status: Topic of the answers.
        is_mine: Says whether a command is for this node to answer; ``None`` is one that nobody understands.
        fault_of: Returns why a command that was understood cannot be done now; empty where it can.
        obey: Called with the id, the text and the meaning of every other command, on one of the executor's threads.
    """

    def __init__(
        self, node: Node, status: StatusTopic, is_mine: Callable[[Command | None], bool],
        fault_of: Callable[[Command | None], str], obey: Callable[[int, str, Command], None],
    ) -> None:  # fmt: skip
        self._node, self._status = node, status
        self._is_mine, self._fault_of, self._obey = is_mine, fault_of, obey

    def open(self, topic: str) -> None:
        """Listens to a topic."""
        self.subscription = self._node.create_subscription(String, topic, self._on_message, RELIABLE)

    def close(self) -> None:
        """Ends the subscription."""
        self._node.destroy_subscription(self.subscription)

    def runs_beside(self, name: str) -> bool:
        """Whether a node called ``name`` runs in this one's namespace."""
        return (name, self._node.get_namespace()) in self._node.get_node_names_and_namespaces()

    def give(self, text: str) -> None:
        """Answers a command as if it had come on the topic."""
        command_id = self._status.next_id()
        command, fault = None, ""
        try:
            command = parse_command(text)
        except CommandError as error:
            fault = str(error)
        if not self._is_mine(command):
            return
        fault = self._fault_of(command) or fault
        if fault:
            self._status.reject(command_id, text, fault)
        else:
            self._obey(command_id, text, command)

    def _on_message(self, message: String) -> None:
        self.give(message.data)


def example_command(namespace: str, topic: str) -> str:
    """Returns what a person types on this machine to give a command to a node in ``namespace``, on ``topic``."""
    if shutil.which("ros2"):
        return f"ros2 topic pub --once {topic} std_msgs/msg/String \"{{data: 'segment the red cup'}}\""
    options = "" if namespace == "/clip_seg" else f"--namespace {namespace} "
    options += "" if topic == f"{namespace}/command" else f"--topic {topic} "
    return f'clip-seg say {options}"segment the red cup"'
