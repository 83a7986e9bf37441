# SPDX-License-Identifier: Apache-2.0
"""Everybody who calls is answered: while a node is cleaned up, shut down or ended, and where a callback fails."""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from types import SimpleNamespace

import pytest
from action_msgs.msg import GoalStatus
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter, ParameterValue, SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import Image

from clip_seg_ros.action import FindObject
from clip_seg_ros.nodes.camera.conversions import fill_image
from clip_seg_ros.nodes.common import answering_services
from clip_seg_ros.nodes.common.answering_services import AnsweringServices, OpenCalls, answer_always, refuse
from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.nodes.life.process import _Executor
from clip_seg_ros.srv import ListPrompts, RemovePrompt, Segment, SetImagePrompt
from goal_client import GoalClient
from ros_harness import NodeProcess, Watcher, wait_until

ENDINGS = int(os.environ.get("CLIP_SEG_ENDINGS", "4"))
"""How many cleanups and ends of processes are tried: set CLIP_SEG_ENDINGS=50 for the figures of the documentation."""
CALLS, GOALS = 6, 4
"""Under way at each ending, of ``segment`` and of ``find_object``."""
ASK_AGAIN_S = 3.0


class Callers:
    """Calls everything that the ``referring`` node of a watcher's namespace offers."""

    def __init__(self, watcher: Watcher, image: Image) -> None:
        self.answers: list[tuple[str, Future]] = []
        self._image = image
        qos = QoSProfile(depth=1000)

        def client(kind, name):
            return watcher.create_client(kind, name, qos_profile=qos)

        self._segment = client(Segment, "segment")
        self._set, self._list = client(SetImagePrompt, "set_image_prompt"), client(ListPrompts, "list_prompts")
        self._remove = client(RemovePrompt, "remove_prompt")
        self._finder = GoalClient(
            watcher, FindObject, "find_object", goal_service_qos_profile=qos, result_service_qos_profile=qos
        )

    def meet(self) -> None:
        """Returns once the node answers all of them; at first it may not know who is to get a response."""
        for client in (self._segment, self._set, self._list, self._remove):
            ask_until_answered(lambda client=client: client.call_async(client.srv_type.Request()), client.srv_name)
        goal = FindObject.Goal(phrase="")
        handle = ask_until_answered(lambda: self._finder.send_goal_async(goal), "find_object")
        ask_until_answered(handle.get_result_async, "find_object's result")
        self.answers.clear()

    def call(self, calls: int = CALLS, goals: int = GOALS) -> None:
        """Calls without waiting for the answers."""
        for _ in range(calls):
            request = Segment.Request(image=self._image, prompts=["red cup"])
            self.answers.append(("segment", self._segment.call_async(request)))
        for _ in range(goals):
            self._send_goal()
        self.answers.append(
            ("set_image_prompt", self._set.call_async(SetImagePrompt.Request(name="mug", image=self._image)))
        )
        self.answers.append(("list_prompts", self._list.call_async(ListPrompts.Request())))
        self.answers.append(("remove_prompt", self._remove.call_async(RemovePrompt.Request(name="mug"))))

    def _send_goal(self) -> None:
        result = Future()
        goal = FindObject.Goal(phrase="blue ball", timeout=Duration(seconds=600.0).to_msg())

        def on_accepted(future: Future) -> None:
            if future.result().accepted:
                future.result().get_result_async().add_done_callback(lambda each: result.set_result(each.result()))
            else:
                result.set_result(SimpleNamespace(status=GoalStatus.STATUS_UNKNOWN, result=FindObject.Result()))

        self._finder.send_goal_async(goal).add_done_callback(on_accepted)
        self.answers.append(("find_object", result))

    def wait_answered(self) -> list[tuple[str, object]]:
        """Returns what each was answered once all are."""

        def missing() -> list[str]:
            return [name for name, future in self.answers if not future.done()]

        try:
            wait_until(lambda: not missing(), "the answers", 300.0)
        except AssertionError as error:
            raise AssertionError(f"no answer to {', '.join(missing())}") from error
        answered, self.answers = [(name, future.result()) for name, future in self.answers], []
        return answered


def ask_until_answered(ask, what):
    futures, asked_s = [ask()], time.monotonic()

    def answered():
        if time.monotonic() - asked_s > ASK_AGAIN_S * len(futures):
            futures.append(ask())
        return [future for future in futures if future.done()]

    return wait_until(answered, what)[0].result()


def change(watcher: Watcher, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return watcher.call(ChangeState, "referring/change_state", request).success


def check(answers, ending: str) -> None:
    """Each answer is a true one, or says why there is none."""
    for name, answer in answers:
        if name == "find_object":
            assert answer.status in (GoalStatus.STATUS_ABORTED, GoalStatus.STATUS_UNKNOWN), (ending, answer)
            assert "the node" in answer.result.message, (ending, answer.result.message)
        elif name == "segment":
            assert answer.success or "the node" in answer.message, (ending, answer.message)


@pytest.fixture
def calling(ros, log, view):
    """A node in a namespace of its own, who watches it, and who calls it."""
    node = NodeProcess("referring", log, ["depth_topic:=''", "image_topic:=/called/image"], namespace="called")
    watcher = Watcher("called")
    try:
        node.wait_said("commands:")
        watcher.wait_for_node()
        yield node, watcher, Callers(watcher, fill_image(Image(), view.rgb, "rgb8"))
    finally:
        watcher.close()
        node.end(signal.SIGKILL)


def test_everybody_is_answered_while_the_node_is_cleaned_up(calling):
    node, watcher, callers = calling
    pause = random.Random(0)
    for turn in range((ENDINGS + 1) // 2):
        callers.meet()
        callers.call()
        time.sleep(pause.uniform(0.0, 0.1))
        if turn % 3:  # the two transitions one after the other, or calls while the node is inactive
            assert change(watcher, Transition.TRANSITION_DEACTIVATE)
            callers.call()
        else:
            assert change(watcher, Transition.TRANSITION_DEACTIVATE)
        assert change(watcher, Transition.TRANSITION_CLEANUP)
        check(callers.wait_answered(), f"cleanup {turn}")
        assert node.process.poll() is None, node.said()
        assert change(watcher, Transition.TRANSITION_CONFIGURE)
        assert change(watcher, Transition.TRANSITION_ACTIVATE)
    assert node.end() == 0
    assert "Traceback" not in node.said(), node.said()
    assert "[ERROR]" not in node.said(), node.said()


@pytest.mark.parametrize("turn", range(ENDINGS // 2))
def test_everybody_is_answered_while_the_node_ends(calling, turn):
    node, watcher, callers = calling
    callers.meet()
    callers.call()
    time.sleep(random.Random(turn).uniform(0.0, 0.1))
    how = ("SIGINT", "shutdown", "SIGTERM")[turn % 3]
    if how == "shutdown":
        assert change(watcher, Transition.TRANSITION_ACTIVE_SHUTDOWN)
        check(callers.wait_answered(), how)
        state = watcher.call(GetState, "referring/get_state", GetState.Request()).current_state.id
        assert state == State.PRIMARY_STATE_FINALIZED
        assert node.end() == 0
    else:
        assert node.end(getattr(signal, how)) == 0, node.said()
        check(callers.wait_answered(), how)
    assert "Traceback" not in node.said(), node.said()
    assert "[ERROR]" not in node.said(), node.said()


@pytest.mark.parametrize("kind", [SetParameters, SetParametersAtomically])
def test_a_parameter_of_a_type_that_does_not_exist_is_refused(referring, watcher, kind):
    request = kind.Request()
    request.parameters = parameters_with_a_wrong_type()
    service = "set_parameters" if kind is SetParameters else "set_parameters_atomically"
    response = watcher.call(kind, f"referring/{service}", request)
    results = response.results if kind is SetParameters else [response.result] * 2
    assert len(results) == 2
    assert not results[1].successful
    assert "77" in results[1].reason
    assert "Traceback" not in referring.said()
    assert referring.process.poll() is None
    assert watcher.set_parameter("referring", "threshold", 0.5).successful


def parameters_with_a_wrong_type():
    good = Parameter(name="threshold", value=ParameterValue(type=3, double_value=0.5))
    return [good, Parameter(name="threshold", value=ParameterValue(type=77))]


class Spinning:
    """A node with services, spun on four threads, and who calls it, for as long as the block lasts."""

    def __init__(self) -> None:
        self.node, self.caller = Node("answering"), Node("answering_caller")
        self.faults: list[str] = []
        self.calls = OpenCalls(self.node)
        self.services = AnsweringServices(self.node, self.calls, FaultLog(self.faults.append))
        self._executor, self._calling = _Executor(4), SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._calling.add_node(self.caller)
        self._threads = ThreadPoolExecutor(2)

    def __enter__(self) -> Spinning:
        self._ended = False
        for executor in (self._executor, self._calling):
            self._threads.submit(self._spin, executor)
        return self

    def _spin(self, executor) -> None:
        while not self._ended:
            executor.spin_once(0.05)

    def __exit__(self, *exc_info: object) -> None:
        self._ended = True
        self._threads.shutdown()
        for executor, node in ((self._executor, self.node), (self._calling, self.caller)):
            executor.shutdown(0)
            node.destroy_node()

    def ask(self, name: str = "called") -> Future:
        client = self.caller.create_client(RemovePrompt, name)
        assert client.wait_for_service(60.0)
        time.sleep(0.5)  # until the other side knows the client, too
        return client.call_async(RemovePrompt.Request(name="x"))


def test_an_answer_that_takes_too_long_is_given_up(ros, monkeypatch):
    monkeypatch.setattr(answering_services, "GRACE_S", 0.2)
    with Spinning() as spinning, ThreadPoolExecutor() as threads:
        begun, go_on = Event(), Event()

        def slow(request, response):
            begun.set()
            go_on.wait()
            response.message = "much later"
            return response

        spinning.services.offer(RemovePrompt, "called", slow)
        answer = spinning.ask()
        assert begun.wait(60.0)
        try:
            assert threads.submit(spinning.calls.close, "the node ends").result(60.0)
            wait_until(answer.done, "the answer")
            assert answer.result().message == "the node ends before the answer was ready"
        finally:
            go_on.set()
        spinning.services.close()


def test_what_an_answer_raises_is_told_to_the_caller_and_once_in_the_log(ros):
    def failing(request, response):
        raise KeyError("nothing of the kind")

    with Spinning() as spinning:
        spinning.services.offer(RemovePrompt, "called", failing)
        for _ in range(2):
            answer = spinning.ask()
            wait_until(answer.done, "the answer")
            assert not answer.result().success
            assert "nothing of the kind" in answer.result().message
        assert len(spinning.faults) == 1
        assert "KeyError" in spinning.faults[0]


def test_services_of_others_answer_where_their_callbacks_raise(ros):
    def failing(request, response):
        raise ValueError("no such thing")

    faults = []
    with Spinning() as spinning:
        spinning.node.create_service(RemovePrompt, "called", failing)
        answer_always(spinning.node, FaultLog(faults.append))
        answer = spinning.ask()
        wait_until(answer.done, "the answer")
        assert not answer.result().success
        assert answer.result().message == "no such thing"
    assert len(faults) == 1
    assert "ValueError: no such thing" in faults[0]


def test_a_refusal_keeps_what_was_done_before():
    request = SetParameters.Request(parameters=parameters_with_a_wrong_type())
    done = SetParametersResult(successful=True)
    response = refuse(request, SetParameters.Response(results=[done]), "why")
    assert [each.successful for each in response.results] == [True, False]
    assert response.results[1].reason == "why"
