# SPDX-License-Identifier: Apache-2.0
"""Services that always respond: also when a callback fails, when the node ends, and when the model is slow."""

from __future__ import annotations

import concurrent.futures
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import CallbackGroup, MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.service import Service

from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.nodes.common.qos import SERVICE

GRACE_S = 1.5
"""Time in seconds that calls in progress get when the services end, before they are refused."""
LINGER_S = 2.0
"""Time in seconds that callers then get to fetch what they still need, such as the result of an action's goal."""
_NAP_S = 0.01


def answer_always(node: Node, faults: FaultLog) -> None:
    """Makes the present services of a node respond with a refusal if their callbacks raise.

    This includes rclpy's own services for parameters.

    Args:
        node: Node of the services.
        faults: Log of the exceptions.
    """

    def answering(service: Service) -> Callable[[Any, Any], Any]:
        callback, name = service.callback, service.srv_name

        def answer(request: Any, response: Any) -> Any:
            try:
                return callback(request, response)
            except Exception as error:  # whatever it is, the caller waits for a response
                faults.report(f"service {name}", repr(error), f"a call failed: {type(error).__name__}: {error}")
                node.get_logger().debug(traceback.format_exc())
                return refuse(request, response, str(error) or type(error).__name__)

        return answer

    for service in node.services:
        service.callback = answering(service)


def refuse(request: Any, response: Any, why: str) -> Any:
    """Returns the response of any service, filled with as much of a refusal as its type can express."""
    if hasattr(response, "success"):
        response.success = False
    if hasattr(response, "message"):
        response.message = why
    refused = SetParametersResult(successful=False, reason=why)
    if hasattr(response, "results") and hasattr(request, "parameters"):
        done = list(response.results)
        response.results = done + [refused] * (len(request.parameters) - len(done))
    elif isinstance(getattr(response, "result", None), SetParametersResult):
        response.result = refused
    return response


class OpenCalls:
    """Counts the calls of services and actions in progress, and waits until every caller has a response.

    It is open at first. Once it is closed, services and actions must refuse calls for the reason ``refusal``.

    Args:
        node: Node of the services and actions.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._running = self._begun = 0
        self._pending: list[Callable[[], int]] = []
        self.open()

    def open(self) -> None:
        """Allows calls, from now on or again."""
        self.refusal = ""
        self.given_up: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._pending = []

    def group(self, reentrant: bool = False) -> CallbackGroup:
        """Returns a callback group, mutually exclusive or reentrant, whose callbacks and responses are waited for."""
        return _CountedReentrant(self) if reentrant else _Counted(self)

    def also_wait_for(self, pending: Callable[[], int]) -> None:
        """Makes ``close`` wait for more than the callbacks: also until ``pending()`` is 0."""
        self._pending.append(pending)

    def close(self, why: str) -> bool:
        """Refuses new calls for a reason, and waits until all earlier ones have their responses.

        A call that takes longer than ``GRACE_S`` is refused as well, so that this never takes much longer than
        ``GRACE_S`` and ``LINGER_S`` together. It must not be called from a callback of the groups.

        Returns:
            Whether every caller has a response.
        """
        self.refusal = why
        if self._settle(GRACE_S, linger=False):
            return self._settle(LINGER_S, linger=True)
        if not self.given_up.done():
            self.given_up.set_result(None)
        return self._settle(LINGER_S, linger=True)

    def begin(self) -> None:
        """Counts a callback that begins."""
        with self._lock:
            self._running += 1
            self._begun += 1

    def end(self) -> None:
        """Counts a callback that has ended."""
        with self._lock:
            self._running -= 1

    def _settle(self, longest_s: float, linger: bool) -> bool:
        """Waits until no call is in progress and the executor has no call left to begin."""
        deadline_s = time.monotonic() + longest_s
        while time.monotonic() < deadline_s:
            before = self._begun
            # One turn may have begun too early to see all calls that had already arrived.
            turned = all(self._turn(deadline_s) for _ in range(2))
            waiting = self._running + (sum(count() for count in self._pending) if linger else 0)
            if turned and not waiting and self._begun == before:
                return True
            time.sleep(_NAP_S)
        return False

    def _turn(self, deadline_s: float) -> bool:
        """Waits until the node's executor has begun all ready callbacks; returns whether it did so in time."""
        executor = self._node.executor
        if executor is None or not self._node.context.ok():
            return True  # no callback ever begins
        turned = threading.Event()
        executor.create_task(turned.set)
        return turned.wait(max(0.0, deadline_s - time.monotonic()))


class _Counted(MutuallyExclusiveCallbackGroup):
    def __init__(self, calls: OpenCalls) -> None:
        super().__init__()
        self._calls = calls

    def beginning_execution(self, entity: Any) -> bool:
        begins = super().beginning_execution(entity)
        if begins:
            self._calls.begin()
        return begins

    def ending_execution(self, entity: Any) -> None:
        super().ending_execution(entity)
        self._calls.end()


class _CountedReentrant(ReentrantCallbackGroup):
    def __init__(self, calls: OpenCalls) -> None:
        super().__init__()
        self._calls = calls

    def beginning_execution(self, entity: Any) -> bool:
        self._calls.begin()
        return True

    def ending_execution(self, entity: Any) -> None:
        self._calls.end()


class AnsweringServices:
    """Services of a node that share one thread, on which their responses are made one at a time.

    Args:
        node: Node of the services.
        calls: Counter of the calls in progress.
        faults: Log of unexpected exceptions.
    """

    def __init__(self, node: Node, calls: OpenCalls, faults: FaultLog) -> None:
        self._node, self._calls, self._faults = node, calls, faults
        self._group = calls.group()
        self._services: list[Service] = []
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "services")

    def offer(self, kind: type, name: str, answer: Callable[[Any, Any], Any]) -> None:
        """Offers a service; ``answer`` fills a response and returns it, as rclpy's callbacks do."""

        def on_call(request: Any, response: Any) -> Any:
            return self._answer(name, answer, request, response)

        self._services.append(
            self._node.create_service(kind, name, on_call, qos_profile=SERVICE, callback_group=self._group)
        )

    def close(self) -> None:
        """Destroys the services."""
        for service in self._services:
            self._node.destroy_service(service)
        self._services = []
        self._thread.shutdown(wait=False)

    def _answer(self, name: str, answer: Callable[[Any, Any], Any], request: Any, response: Any) -> Any:
        calls = self._calls
        if calls.refusal:
            return refuse(request, response, calls.refusal)
        # The call gets a response of its own, because a call that was given up still writes to it.
        answering = self._thread.submit(answer, request, type(response)())
        concurrent.futures.wait([answering, calls.given_up], return_when=concurrent.futures.FIRST_COMPLETED)
        if not answering.done():
            return refuse(request, response, f"{calls.refusal} before the answer was ready")
        try:
            return answering.result()
        except Exception as error:  # whatever it is, the caller waits for a response
            self._faults.report(f"service {name}", repr(error), f"a call failed: {type(error).__name__}: {error}")
            self._node.get_logger().debug("".join(traceback.format_exception(error)))
            return refuse(request, response, str(error) or type(error).__name__)
