# SPDX-License-Identifier: Apache-2.0
"""The statuses of commands: one status follows at once, some tell the progress, and one the outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rclpy.node import Node
from std_msgs.msg import Header

from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.common.qos import STATUS

MAX_ECHO = 200
"""The number of characters of a command that its status repeats."""


class StatusTopic:
    """Publishes and logs every ``CommandStatus`` of a node, and counts its commands, also after it was reopened."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._count = 0
        self.caution: Callable[[], str] = lambda: ""
        """Returns what is to be told of the model with every outcome; empty if nothing is."""

    def open(self) -> None:
        """Creates the publisher."""
        self._publisher = self._node.create_publisher(CommandStatus, "status", STATUS)

    def close(self) -> None:
        """Destroys the publisher."""
        self._node.destroy_publisher(self._publisher)

    def next_id(self) -> int:
        """Counts a command that has just arrived, and returns its id."""
        self._count += 1
        return self._count

    def accept(self, command_id: int, text: str, note: str, prompts: Sequence[str] = ()) -> None:
        """Publishes that a command was understood and is being carried out."""
        self._say(command_id, text, CommandStatus.ACCEPTED, note, prompts)

    def reject(self, command_id: int, text: str, note: str) -> None:
        """Publishes why a command was not understood or cannot be carried out."""
        self._say(command_id, text, CommandStatus.REJECTED, note)

    def done(self, command_id: int, text: str, note: str) -> None:
        """Publishes that a command which took some time is done."""
        self._say(command_id, text, CommandStatus.DONE, note)

    def fail(self, command_id: int, text: str, note: str) -> None:
        """Publishes why a command which took some time failed."""
        self._say(command_id, text, CommandStatus.FAILED, note)

    def outcome(
        self, command_id: int, text: str, header: Header, note: str, prompts: Sequence[str], found: Sequence[str]
    ) -> None:
        """Publishes which prompts were found in the image with this header."""
        state = CommandStatus.FOUND if found else CommandStatus.NOT_FOUND
        note = "; ".join(filter(None, (note, self.caution())))
        self._say(command_id, text, state, note, prompts, found, header)

    def _say(
        self,
        command_id: int,
        text: str,
        state: int,
        note: str,
        prompts: Sequence[str] = (),
        found: Sequence[str] = (),
        header: Header | None = None,
    ) -> None:
        self._publisher.publish(
            CommandStatus(
                header=header or Header(stamp=self._node.get_clock().now().to_msg()),
                command_id=command_id,
                command=text[:MAX_ECHO],
                state=state,
                message=note,
                prompts=list(prompts),
                found=list(found),
            )
        )
        self._node.get_logger().info(f"command {command_id} {text[:MAX_ECHO]!r}: {note}")
