# SPDX-License-Identifier: Apache-2.0
"""A node that asks other nodes on behalf of many callers at once, each of whom waits for a limited time."""

from __future__ import annotations

import concurrent.futures
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from rclpy.client import Client
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Future
from std_msgs.msg import String

from clip_seg_ros.commands.awaited import AwaitedStatuses
from clip_seg_ros.msg import CommandStatus
from clip_seg_ros.nodes.common.qos import RELIABLE
from clip_seg_ros.nodes.common.rclpy_internals import is_heard, publisher_count
from clip_seg_ros.nodes.common.statuses import MAX_ECHO
from clip_seg_ros.nodes.observers.listening import Listening
from clip_seg_ros.nodes.observers.talker import status_event

T = TypeVar("T")

_DISCOVERY_S = 10.0
"""The time in seconds that the first discovery of nodes may take."""
_REDISCOVERY_S = 3.0
"""The time in seconds that a node which was restarted may take to be seen again."""
SETTLE_S = 0.3
"""Time in seconds after two sides have discovered each other until messages are sure to arrive."""
AGAIN_S = 5.0
"""Time in seconds without an answer after which a request is sent again, because it got lost during discovery."""
_SPINNER_S = 20.0
_POLL_S = 0.05
STATUS_KIND = "clip_seg_ros/msg/CommandStatus"


class Unanswered(Exception):
    """A question has no answer; the message says why, and what to do if something can be done."""


class Nobody(Exception):
    """No node is there to ask.

    Args:
        topic: The topic of statuses on which none was heard.
        others: Such topics on which there are nodes.
    """

    def __init__(self, topic: str, others: Sequence[str]) -> None:
        super().__init__(f"no node answers on {topic}")
        self.topic, self.others = topic, list(others)


class GivenUp(Exception):
    """The caller does not want the answer any more, or the process ends."""


class Asking(Node):
    """Publishes commands, calls services and waits for what comes of it. Its methods may be called on many threads.

    Args:
        namespace: Namespace of the nodes to ask.
        topic: Topic of the commands.
        use_sim_time: Whether ages are measured by the clock of a simulation; ``None``: as the parameter says.
        name: Name of this node; empty: one that no other process has.
    """

    def __init__(self, namespace: str, topic: str, use_sim_time: bool | None = False, name: str = "") -> None:
        clock = [] if use_sim_time is None else [Parameter("use_sim_time", value=use_sim_time)]
        super().__init__(name or f"asker_{os.getpid()}", namespace=namespace, parameter_overrides=clock)
        self._begun_s = time.monotonic()
        self.changed = threading.Condition()
        self._ended = False
        # Held while a command is given, because each one replaces what the nodes look for.
        self._turn = threading.Lock()
        self._known: set[bytes] = set()
        self._heard: Callable[[CommandStatus], None] = lambda status: None
        self.on_status: Callable[[CommandStatus], None] = lambda status: None
        """Called with every status, whoever gave the command, on the thread that spins the node."""
        self._command = self.create_publisher(String, topic, RELIABLE)
        self._status = self.create_subscription(CommandStatus, "status", self._on_status, RELIABLE)
        self.listening = Listening(self, self.changed)

    def end(self) -> None:
        """Makes everybody who waits give up."""
        with self.changed:
            self._ended = True
            self.changed.notify_all()

    def on_spinner(self, do: Callable[[], T]) -> T:
        """Runs a function on the thread that spins the node, and returns its result.

        rclpy notes a request only after it was sent: an answer that another thread takes before that is lost.
        """
        done: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            try:
                done.set_result(do())
            except Exception as error:
                done.set_exception(error)

        self.executor.create_task(run)
        return done.result(_SPINNER_S)

    def wait(self, happened: Callable[[], T], patience_s: float, given_up: threading.Event) -> T | None:
        """Waits until ``happened()`` is true and returns its value; returns ``None`` if the time is up.

        Raises:
            GivenUp: The caller has given up.
        """
        deadline_s = time.monotonic() + patience_s
        with self.changed:
            while not (result := happened()):
                if self._ended or given_up.is_set():
                    raise GivenUp
                if (left_s := deadline_s - time.monotonic()) <= 0.0:
                    return None
                self.changed.wait(min(left_s, _POLL_S))
        return result

    def meet(self, is_there: Callable[[], bool], given_up: threading.Event) -> bool:
        """Returns whether ``is_there`` comes true while nodes are being discovered, and messages will arrive then."""
        patience_s = max(_REDISCOVERY_S, self._begun_s + _DISCOVERY_S - time.monotonic())
        if not self.wait(is_there, patience_s, given_up):
            return False
        endpoints = self.get_publishers_info_by_topic(self._status.topic_name)
        present = {bytes(endpoint.endpoint_gid) for endpoint in endpoints}
        if not present <= self._known:
            self.wait(lambda: False, SETTLE_S, given_up)
        self._known = present
        return True

    def nobody(self) -> Nobody:
        """Returns the error that says that no node is there."""
        others = [name for name, kinds in self.get_topic_names_and_types() if STATUS_KIND in kinds]
        return Nobody(self._status.topic_name, sorted(name for name in others if self.count_publishers(name) > 0))

    def meet_commanded(self, given_up: threading.Event) -> None:
        """Waits for a node that obeys commands.

        Raises:
            Nobody: There is none.
        """
        if not self.meet(self.is_commanded, given_up):
            raise self.nobody()

    def is_commanded(self) -> bool:
        """Returns whether a node subscribes to commands and publishes their statuses."""
        return is_heard([self._command]) and publisher_count(self, self._status) > 0

    def call(self, client: Client, request: Any, patience_s: float, given_up: threading.Event) -> Any:
        """Calls a service that may be called twice, and returns its response, or ``None`` if none comes in time."""
        asked: list[Future] = []

        def answers() -> list[Any]:
            return [future.result() for future in asked if future.done()]

        deadline_s = time.monotonic() + patience_s
        while (left_s := deadline_s - time.monotonic()) > 0.0:
            asked.append(self.on_spinner(lambda: client.call_async(request)))
            if answered := self.wait(answers, min(left_s, AGAIN_S), given_up):
                return answered[0]
        for future in asked:
            self.on_spinner(lambda: client.remove_pending_request(future))  # noqa: B023 (it runs at once)
        return None

    # Commands.

    @contextmanager
    def my_turn(self, patience_s: float) -> Iterator[None]:
        """Keeps others from giving a command meanwhile.

        Raises:
            Unanswered: The others took too long.
        """
        if not self._turn.acquire(timeout=patience_s):
            raise Unanswered(f"other commands are still being carried out after {patience_s:g} s: try again")
        try:
            yield
        finally:
            self._turn.release()

    def give(self, text: str, timeout_s: float, given_up: threading.Event) -> list[dict[str, Any]]:
        """Gives a command in one's turn and returns its statuses, as ``status_event`` does, from first to last.

        Raises:
            Nobody: No node is there.
            Unanswered: It was rejected, it failed, or its last status did not come in time.
        """
        statuses: list[dict[str, Any]] = []
        awaited = AwaitedStatuses(text)
        over = threading.Event()

        def hear(status: CommandStatus) -> None:
            event = status_event(status)
            begins = not statuses and event["state"] in ("accepted", "rejected")
            if status.command == text[:MAX_ECHO] and (begins or (statuses and event["id"] == statuses[0]["id"])):
                statuses.append(event | {"stamp_ns": _stamp_ns(status)})
                if awaited.take(event):
                    over.set()

        self.meet_commanded(given_up)
        deadline_s = time.monotonic() + timeout_s
        self._heard = hear
        try:
            while not statuses and (left_s := deadline_s - time.monotonic()) > 0.0:
                self._command.publish(String(data=text))
                self.wait(lambda: statuses, min(left_s, AGAIN_S), given_up)
            self.wait(over.is_set, max(0.0, deadline_s - time.monotonic()), given_up)
        finally:
            self._heard = lambda status: None
        _check(statuses, awaited, timeout_s)
        return statuses

    def _on_status(self, status: CommandStatus) -> None:
        self.on_status(status)
        with self.changed:
            self._heard(status)
            self.changed.notify_all()


def _stamp_ns(status: CommandStatus) -> int:
    return status.header.stamp.sec * 10**9 + status.header.stamp.nanosec


def _check(statuses: Sequence[dict[str, Any]], awaited: AwaitedStatuses, timeout_s: float) -> None:
    """Raises ``Unanswered`` unless the last status of a command has come, and says that it was carried out."""
    if not statuses:
        raise Unanswered(f"a node is there, but it did not answer the command within {timeout_s:g} s")
    if awaited.verdict in ("rejected", "failed"):
        raise Unanswered(next(each["message"] for each in reversed(statuses) if each["state"] == awaited.verdict))
    if "done" in awaited.missing:
        raise Unanswered(f"the command was accepted, but the model is not ready after {timeout_s:g} s: ask again later")
    if awaited.missing:
        raise Unanswered(
            f"the command was accepted, but no image was answered within {timeout_s:g} s: does a camera send any?"
        )
