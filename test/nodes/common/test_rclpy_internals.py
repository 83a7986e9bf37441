# SPDX-License-Identifier: Apache-2.0
"""Each private or newer name of rclpy that the nodes use: that it is there, and what is done where it is not."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Task
from std_msgs.msg import Int32

from clip_seg_ros.nodes.camera import subscription_thread
from clip_seg_ros.nodes.camera.subscription_thread import OwnThreadGroup, SubscriptionThread, own_thread_group
from clip_seg_ros.nodes.common import rclpy_internals
from clip_seg_ros.nodes.common.rclpy_internals import (
    HAS_WAIT_SETS,
    SubscriptionWait,
    given_parameters,
    guard_transitions,
    has_begun,
    is_heard,
    on_set_parameters,
    publisher_count,
    take,
)
from ros_harness import NodeProcess, SemanticWatcher, Talker, Watcher, wait_until

NODES = Path(rclpy_internals.__file__).parents[1]


@pytest.fixture
def node(ros):
    node = LifecycleNode("internals_test")
    yield node
    node.destroy_node()


def test_private_names_of_rclpy_stand_in_one_file_only():
    """rclpy's compiled half, and the private parts of its nodes and tasks."""
    for path in NODES.rglob("*.py"):
        if path.name == "rclpy_internals.py":
            continue
        for item in ast.walk(ast.parse(path.read_text())):
            if isinstance(item, ast.ImportFrom):
                assert not (item.module or "").startswith("rclpy.impl.implementation"), path.name
            if isinstance(item, ast.Attribute):
                assert item.attr not in ("_service_change_state", "_parameter_overrides", "executing"), path.name


def test_this_rclpy_has_all_of_them(node):
    """Where a release renames one, this says so; the nodes then do without it."""
    assert HAS_WAIT_SETS
    assert hasattr(node._service_change_state, "callback")
    assert hasattr(Task, "executing")
    assert hasattr(node, "_parameter_overrides")


def test_given_parameters_are_listed_and_none_where_rclpy_keeps_them_elsewhere(ros):
    node = Node("given_test", parameter_overrides=[Parameter("b", value=1), Parameter("a", value=2)])
    assert given_parameters(node) == ("a", "b")
    node.destroy_node()
    assert given_parameters(object()) == ()


def test_a_wait_ends_with_a_message_and_with_a_wake(node):
    publisher = node.create_publisher(Int32, "internals/numbers", 10)
    subscription = node.create_subscription(Int32, "internals/numbers", print, 10, callback_group=OwnThreadGroup())
    wait = SubscriptionWait([subscription], node.context)
    assert take(subscription) is None
    wait_until(lambda: publisher_count(node, subscription) == 1, "the topic to connect")
    publisher.publish(Int32(data=5))
    assert wait.ready(10**11) == [subscription]
    assert take(subscription).data == 5
    wait.wake()
    assert wait.ready(10**11) == []


def test_publishers_are_counted_with_older_names_too(node):
    subscription = node.create_subscription(Int32, "internals/counted", print, 10)

    class Older:
        topic_name = subscription.topic_name

    assert publisher_count(node, subscription) == publisher_count(node, Older()) == 0
    node.create_publisher(Int32, "internals/counted", 10)
    wait_until(lambda: publisher_count(node, subscription) == 1, "the publisher")
    wait_until(lambda: publisher_count(node, Older()) == 1, "the publisher by its topic")


def test_nobody_listens_to_what_was_destroyed(node):
    publisher = node.create_publisher(Int32, "internals/heard", 10)
    assert not is_heard([publisher])
    node.create_subscription(Int32, "internals/heard", print, 10)
    wait_until(lambda: is_heard([publisher]), "the subscription")
    node.destroy_publisher(publisher)
    assert not is_heard([publisher])


def test_without_wait_sets_the_executor_serves(node, monkeypatch):
    monkeypatch.setattr(subscription_thread, "HAS_WAIT_SETS", False)
    group, heard = own_thread_group(), []
    assert isinstance(group, MutuallyExclusiveCallbackGroup)
    publisher = node.create_publisher(Int32, "internals/served", 10)
    subscription = node.create_subscription(Int32, "internals/served", heard.append, 10, callback_group=group)
    thread = SubscriptionThread([subscription], node.context, lambda error: None)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    wait_until(lambda: publisher_count(node, subscription) == 1, "the topic to connect")
    publisher.publish(Int32(data=3))
    wait_until(lambda: executor.spin_once(0.05) or heard, "the message")
    assert heard[0].data == 3
    assert thread.close()
    executor.shutdown()


def test_a_transition_that_there_is_not_is_refused(node):
    refused = []
    guard_transitions(node, refused.append)
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVATE))
    response = node._service_change_state.callback(request, ChangeState.Response(success=True))
    assert not response.success
    assert len(refused) == 1
    request.transition.id = Transition.TRANSITION_CONFIGURE
    assert node._service_change_state.callback(request, ChangeState.Response()).success
    assert len(refused) == 1


def test_where_the_service_has_another_name_it_is_left_alone():
    guard_transitions(object(), print)


def test_a_task_has_begun_while_it_runs_and_after():
    seen = []
    task = Task(lambda: seen.append(has_begun(task)))
    assert not has_begun(task)
    task()
    assert seen == [True]
    assert has_begun(task)
    assert has_begun(object()), "nobody waits for what cannot be known"


@pytest.mark.parametrize("release", ["present", "humble"])
def test_parameters_are_checked_and_then_applied(ros, monkeypatch, release):
    if release == "humble":
        monkeypatch.delattr(Node, "add_post_set_parameters_callback")
    applied = []

    def check(changes: list[Parameter]) -> SetParametersResult:
        return SetParametersResult(successful=all(change.value < 5 for change in changes), reason="too many")

    node = Node("parameters_test")
    node.declare_parameter("count", 1)
    on_set_parameters(node, check, lambda changes: applied.append([change.value for change in changes]))
    assert node.set_parameters([Parameter("count", value=2)])[0].successful
    assert applied == [[2]]
    refused = node.set_parameters([Parameter("count", value=9)])[0]
    assert not refused.successful
    assert refused.reason == "too many"
    assert applied == [[2]]
    assert node.get_parameter("count").value == 2
    node.destroy_node()


# Whole nodes with what rclpy 3.3, of Humble, does not have.

LIKE_HUMBLE = """
# Python runs this before anything else. rclpy 3.3 has none of these names.
import importlib.abc, importlib.util, sys

ABSENT = {"rclpy.node": ["Node.add_post_set_parameters_callback", "Node.add_pre_set_parameters_callback"],
          "rclpy.subscription": ["Subscription.get_publisher_count"]}
HIDDEN = ("rclpy.parameter_client", "rclpy.event_handler", "rclpy.type_hash")

class Older(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in HIDDEN and "clip_seg_ros" in sys._getframe(1).f_globals.get("__name__", ""):
            raise ModuleNotFoundError(f"rclpy 3.3 has no {name}", name=name)
        if name not in ABSENT:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        sys.meta_path.insert(0, self)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            for each in ABSENT[name]:
                kind, attribute = each.split(".")
                delattr(getattr(module, kind), attribute)

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Older())
"""


@pytest.fixture
def humble(tmp_path, monkeypatch) -> None:
    """Processes that start now see an rclpy without the names that Humble's lacks."""
    (tmp_path / "humble").mkdir()
    (tmp_path / "humble" / "sitecustomize.py").write_text(LIKE_HUMBLE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'humble'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    probe = (
        "import rclpy.node, rclpy.subscription;"
        "print(hasattr(rclpy.node.Node, 'add_post_set_parameters_callback'),"
        "hasattr(rclpy.subscription.Subscription, 'get_publisher_count'))"
    )
    said = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert said.stdout.split() == ["False", "False"], said.stderr


@pytest.mark.parametrize(
    ("name", "kind", "number"), [("referring", Watcher, "smoothing"), ("semantic", SemanticWatcher, "min_confidence")]
)
def test_a_node_runs_without_what_humble_lacks(ros, humble, log, view, name, kind, number):
    """It starts, takes parameters live, refuses wrong ones, answers an image and ends quietly."""
    node = NodeProcess(name, log, ["initial_command:='segment the red cup'"][: name == "referring"], namespace="humble")
    watcher = kind("humble")
    try:
        node.wait_said("commands:")
        watcher.wait_for_node()
        assert watcher.set_parameter(name, number, 0.25).successful
        refused = watcher.set_parameter(name, number, 3.0)
        assert not refused.successful
        assert number in refused.reason
        with Talker.camera(depth=name == "referring") as camera:
            stamp = camera.send_view(view)
            watcher.of_stamp("mask" if name == "referring" else "semantic/labels", stamp)
        assert node.end() == 0, node.said()
        assert "Traceback" not in node.said(), node.said()
    finally:
        watcher.close()
        node.end()


@pytest.mark.parametrize(
    "name", ["sim_camera", "observers.demo_observer", "observers.bench_observer", "observers.bench_camera"]
)
def test_every_other_program_loads_without_what_humble_lacks(humble, name):
    said = subprocess.run([sys.executable, "-c", f"import clip_seg_ros.nodes.{name}"], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
