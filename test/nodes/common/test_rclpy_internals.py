# SPDX-License-Identifier: Apache-2.0
"""Each private or newer name of rclpy that the nodes use: that it is there, and what is done where it is not."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Task
from std_msgs.msg import Int32, String

from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.camera import subscription_thread
from clip_seg_ros.nodes.camera.subscription_thread import OwnThreadGroup, SubscriptionThread, own_thread_group
from clip_seg_ros.nodes.common import rclpy_internals
from clip_seg_ros.nodes.common.qos import RELIABLE
from clip_seg_ros.nodes.common.rclpy_internals import (
    HAS_WAIT_SETS,
    CountingActionServer,
    SubscriptionWait,
    given_parameters,
    guard_transitions,
    has_begun,
    is_heard,
    misfit_callbacks,
    on_set_parameters,
    publisher_count,
    take,
)
from ros_harness import NodeProcess, SemanticWatcher, Talker, Watcher, wait_until

NODES = Path(rclpy_internals.__file__).parents[1]
OTHERS = [path for path in sorted(NODES.rglob("*.py")) if path.name != "rclpy_internals.py"]
ABSENT = {
    "rclpy.node": ["Node.add_post_set_parameters_callback", "Node.add_pre_set_parameters_callback"],
    "rclpy.subscription": ["Subscription.get_publisher_count"],
}
"""What rclpy 3.3, of Humble, lacks: its module -> its class and its name."""
HIDDEN = ("rclpy.parameter_client", "rclpy.event_handler", "rclpy.type_hash")
"""The modules that it lacks."""
RESERVED = {"executing", *(name.split(".")[1] for names in ABSENT.values() for name in names)}
"""Names without an underscore that only the one file may use."""


@pytest.fixture
def node(ros):
    node = LifecycleNode("internals_test")
    yield node
    node.destroy_node()


def private_names(tree: ast.AST) -> set[str]:
    """The names with one underscore that code defines, or uses of any object, also as texts for ``getattr``."""
    found = {item.attr for item in ast.walk(tree) if isinstance(item, ast.Attribute)}
    found |= {item.name for item in ast.walk(tree) if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef))}
    found |= {item.value for item in ast.walk(tree) if isinstance(item, ast.Constant) and isinstance(item.value, str)}
    return {name for name in found if name.isidentifier() and name.startswith("_") and not name.startswith("__")}


def private_names_of_class(kind: type) -> set[str]:
    return private_names(ast.parse(textwrap.dedent(inspect.getsource(kind))))


def modules_imported(tree: ast.AST) -> Iterator[str]:
    for item in ast.walk(tree):
        if isinstance(item, ast.Import):
            yield from (each.name for each in item.names)
        if isinstance(item, ast.ImportFrom):
            yield from (f"{item.module}.{each.name}" for each in item.names)


def of_strangers(tree: ast.AST) -> set[str]:
    """The private names of anything but ``self``, which are a module's own business only where it defines them."""
    asked = [item for item in ast.walk(tree) if isinstance(item, ast.Attribute) and item.attr.startswith("_")]
    own = {item.attr for item in asked if isinstance(item.value, ast.Name) and item.value.id in ("self", "cls")}
    # os._exit is public in spite of its name.
    return {item.attr for item in asked if not item.attr.startswith("__")} - own - {"_exit"}


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_private_names_of_rclpy_stand_in_one_file_only(path):
    """No other file imports rclpy's inner modules, or uses what is private of a node, a task or another object."""
    tree = ast.parse(path.read_text())
    for module in modules_imported(tree):
        parts = module.split(".")
        assert parts[0] != "rclpy" or not ("impl" in parts or any(part.startswith("_") for part in parts)), module
        assert module.rpartition(".")[0] not in HIDDEN
    assert not {item.attr for item in ast.walk(tree) if isinstance(item, ast.Attribute)} & RESERVED
    assert not of_strangers(tree)


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_what_is_made_of_a_class_of_rclpy_uses_no_private_name_of_it(path):
    """Neither on purpose nor by chance, because a name of its own that is the same breaks the class below it."""
    name = ".".join(("clip_seg_ros", "nodes", *path.relative_to(NODES).with_suffix("").parts))
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:  # tf2, which the nodes can do without
        pytest.skip(f"{error.name} is not installed")
    for kind in vars(module).values():
        if inspect.isclass(kind) and kind.__module__ == module.__name__:
            for base in inspect.getmro(kind):
                if base.__module__.startswith("rclpy."):
                    assert not private_names_of_class(kind) & private_names_of_class(base), (kind, base)


def test_the_names_that_are_looked_for_would_be_found():
    """In the one file, which uses them."""
    tree = ast.parse(Path(rclpy_internals.__file__).read_text())
    assert {"rclpy.impl.rcutils_logger.RcutilsLogger", "rclpy.event_handler.PublisherEventCallbacks"} <= set(
        modules_imported(tree)
    )
    assert {"_service_change_state", "_parameter_overrides", "_result_futures"} <= private_names(tree)
    shared = private_names_of_class(CountingActionServer) & private_names_of_class(rclpy.action.ActionServer)
    assert shared == {"_result_futures", "_send_result_response"}
    assert of_strangers(ast.parse("node._parameter_overrides, self._own")) == {"_parameter_overrides"}


def test_this_rclpy_has_all_of_them(node):
    """Where a release renames one, this says so; the nodes then do without it."""
    assert HAS_WAIT_SETS
    assert hasattr(node._service_change_state, "callback")
    assert hasattr(Task, "executing")
    assert hasattr(node, "_parameter_overrides")
    assert hasattr(rclpy.action.ActionServer, "_send_result_response")
    assert "_result_futures" in private_names_of_class(rclpy.action.ActionServer)


def test_callbacks_about_endpoints_are_those_that_a_release_has():
    class Older:
        def __init__(self, *, incompatible_qos=None):
            self.incompatible_qos = incompatible_qos

    def quality(event):
        pass

    def message_type(event):
        pass

    assert misfit_callbacks(Older, quality, message_type).incompatible_qos is quality
    made = misfit_callbacks(rclpy_internals.SubscriptionEventCallbacks, quality, message_type)
    assert (made.incompatible_qos, made.incompatible_type) == (quality, message_type)


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
import builtins, importlib.abc, importlib.util, sys

real_import = builtins.__import__

def older_import(name, globals=None, locals=None, fromlist=(), level=0):
    # rclpy itself still has them.
    if name in HIDDEN and ((globals or {}).get("__package__") or "").startswith("clip_seg_ros"):
        raise ModuleNotFoundError(f"rclpy 3.3 has no {name}", name=name)
    return real_import(name, globals, locals, fromlist, level)

builtins.__import__ = older_import

class Older(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
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
    # Python runs this before anything else.
    told = f"ABSENT, HIDDEN = {ABSENT!r}, {HIDDEN!r}\n"
    (tmp_path / "humble" / "sitecustomize.py").write_text(told + LIKE_HUMBLE)
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
    parameters = ["initial_command:='segment the red cup'"] if name == "referring" else []
    # A fork would have the rclpy of the process that it is forked from.
    node = NodeProcess(name, log, parameters, namespace="humble", fresh=True)
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


def test_commands_are_given_without_what_humble_lacks(ros, humble):
    """By the process behind ``clip-seg say``, once somebody hears commands and answers them."""
    node = Node("answering", namespace="humble_talk")
    node.create_subscription(String, "command", print, RELIABLE)
    node.create_publisher(CommandStatus, "status", RELIABLE)
    module = "clip_seg_ros.nodes.observers.talker"
    arguments = ["--namespace", "humble_talk", "--say", "stop"]
    with subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True) as talker:
        try:
            assert json.loads(talker.stdout.readline()) == {"event": "connected"}
        finally:
            talker.send_signal(signal.SIGINT)
            node.destroy_node()
    assert talker.returncode == 0


@pytest.mark.parametrize(
    "name",
    [
        "sim_camera",
        "observers.demo_observer",
        "observers.bench_observer",
        "observers.bench_camera",
        "observers.talker",
    ],
)
def test_every_other_program_loads_without_what_humble_lacks(humble, name):
    said = subprocess.run([sys.executable, "-c", f"import clip_seg_ros.nodes.{name}"], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
