# SPDX-License-Identifier: Apache-2.0
"""Which node answers a command: the one that is active and understands it, whatever the nodes are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import String

from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.common.qos import RELIABLE, STATUS
from clip_seg_ros.nodes.common.statuses import StatusTopic
from clip_seg_ros.nodes.life.command_router import CommandRouter, example_command
from ros_harness import wait_until


class Listener:
    """A node that takes commands, as ``referring`` or ``semantic`` do."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.active = kind, False
        self.node = Node(name, namespace="routed")
        self.status = StatusTopic(self.node)
        self.status.open()
        self.router = CommandRouter(
            self.node,
            kind,
            self.status,
            lambda: self.active,
            self._is_mine,
            lambda command: "" if self.active else f"{kind} is not active",
            self._obey,
        )
        self.router.open("command", self.node.default_callback_group)

    def activate(self) -> None:
        self.active = True
        self.router.announce()

    def deactivate(self) -> None:
        self.active = False
        self.router.withdraw()

    def _is_mine(self, command) -> bool:
        is_list = command is not None and command.verb == "classes"
        if self.kind == "semantic":
            return is_list or not self.router.runs_beside("referring")
        return not is_list or not self.router.runs_beside("semantic")

    def _obey(self, command_id, text, command) -> None:
        self.status.accept(command_id, text, self.kind)


@pytest.fixture
def table(ros):
    """Two nodes whose names say nothing, and what a person hears."""
    nodes = {"referring": Listener("referring", "eyes"), "semantic": Listener("semantic", "floor")}
    person = Node("person", namespace="routed")
    heard = []
    person.create_subscription(CommandStatus, "status", heard.append, RELIABLE)
    commands = person.create_publisher(String, "command", RELIABLE)
    executor = MultiThreadedExecutor(2)
    for node in (*(each.node for each in nodes.values()), person):
        executor.add_node(node)

    def spin_until(happened, what):
        wait_until(lambda: executor.spin_once(0.05) or happened(), what)

    spin_until(lambda: commands.get_subscription_count() == 2 and person.count_publishers("status") == 2, "the nodes")

    def say(text, answers):
        """Gives a command; returns the ``answers`` that it gets, sorted."""
        heard.clear()
        commands.publish(String(data=text))
        spin_until(lambda: len(heard) >= answers, f"{answers} answers")
        for _ in range(20):  # nobody else has a word
            executor.spin_once(0.05)
        return sorted(status.message for status in heard)

    def settle():
        for kind, each in nodes.items():
            others = [other.router for other in nodes.values() if other is not each]
            spin_until(lambda: all(o.runs_beside(kind) == each.active for o in others), f"word of {kind}")

    yield nodes, say, settle
    executor.shutdown()
    for node in (*(each.node for each in nodes.values()), person):
        node.destroy_node()


def test_each_answers_its_own_where_both_are_active(table):
    nodes, say, settle = table
    for each in nodes.values():
        each.activate()
    settle()
    assert say("segment the cup", 1) == ["referring"]
    assert say("classes: cup, floor", 1) == ["semantic"]
    assert len(say("", 1)) == 1


def test_a_neighbour_that_is_not_active_silences_nobody(table):
    nodes, say, settle = table
    nodes["semantic"].activate()
    settle()
    assert say("segment the cup", 1) == ["semantic"]
    assert say("classes: cup", 1) == ["semantic"]
    nodes["semantic"].deactivate()
    nodes["referring"].activate()
    settle()
    assert say("segment the cup", 1) == ["referring"]
    assert say("classes: cup", 1) == ["referring"]


def test_somebody_answers_where_nobody_is_active(table):
    _, say, _ = table
    assert say("segment the cup", 2) == ["referring is not active", "semantic is not active"]


def test_who_comes_later_hears_the_answers_so_far(ros):
    node, later = Node("early", namespace="latched"), Node("later", namespace="latched")
    status = StatusTopic(node)
    status.open()
    status.accept(status.next_id(), "segment the cup", "looking for cup")
    heard = []
    later.create_subscription(CommandStatus, "status", heard.append, STATUS)
    executor = MultiThreadedExecutor(2)
    executor.add_node(later)
    wait_until(lambda: executor.spin_once(0.05) or heard, "the answer to a command given before")
    assert heard[0].message == "looking for cup"
    executor.shutdown()
    for each in (node, later):
        each.destroy_node()


@pytest.mark.parametrize(
    ("namespace", "topic", "typed"),
    [
        ("/clip_seg", "/clip_seg/command", 'clip-seg say "segment the red cup"'),
        ("/left/clip_seg", "/left/clip_seg/command", 'clip-seg say --namespace /left/clip_seg "segment the red cup"'),
        ("/clip_seg", "/robot/heard", 'clip-seg say --topic /robot/heard "segment the red cup"'),
    ],
)
def test_the_example_is_a_command_that_the_machine_has(
    namespace: str, topic: str, typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert example_command(namespace, topic) == typed
    (tmp_path / "ros2").touch(mode=0o755)
    expected = f"ros2 topic pub --once {topic} std_msgs/msg/String \"{{data: 'segment the red cup'}}\""
    assert example_command(namespace, topic) == expected
