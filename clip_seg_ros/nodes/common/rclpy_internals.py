# SPDX-License-Identifier: Apache-2.0
"""Everything of rclpy that this package uses, but that is not public in every release, with a fallback for each.

rclpy 3.3 (Humble) lacks some public names of later releases. A few features are available only through private names,
which any release may change.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from functools import lru_cache
from typing import Any, TypeVar
from weakref import WeakSet

from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.action import ActionServer
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.impl.rcutils_logger import RcutilsLogger as RcutilsLogger  # the type of every logger of rclpy
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.subscription import Subscription
from rclpy.task import Future, Task

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks
try:
    from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
except ImportError:
    _rclpy = None

CallbacksT = TypeVar("CallbacksT", PublisherEventCallbacks, SubscriptionEventCallbacks)

HAS_WAIT_SETS = hasattr(_rclpy, "WaitSet") and hasattr(_rclpy, "GuardCondition")
"""Whether ``SubscriptionWait`` works; otherwise a node's executor must serve all of its subscriptions."""


def on_set_parameters(
    node: Node, check: Callable[[list[Parameter]], SetParametersResult], apply: Callable[[list[Parameter]], None]
) -> None:
    """Registers callbacks that check changes of parameters beforehand, and apply the accepted ones afterwards.

    rclpy 3.3 has no callback after a change: there the changes are applied at the end of the check.

    Args:
        node: Node of the parameters.
        check: Accepts or refuses changes.
        apply: Called with the changes that were accepted.
    """
    if hasattr(node, "add_post_set_parameters_callback"):
        node.add_on_set_parameters_callback(check)
        node.add_post_set_parameters_callback(apply)
        return

    def check_and_apply(changes: list[Parameter]) -> SetParametersResult:
        result = check(changes)
        if result.successful:
            apply(changes)
        return result

    node.add_on_set_parameters_callback(check_and_apply)


def publisher_count(node: Node, subscription: Subscription) -> int:
    """Returns the number of publishers that a subscription is connected to; in rclpy 3.3 the number on its topic.

    Args:
        node: Node of the subscription.
        subscription: The subscription.
    """
    if hasattr(subscription, "get_publisher_count"):
        return subscription.get_publisher_count()
    return node.count_publishers(subscription.topic_name)


def misfit_callbacks(
    kind: type[CallbacksT], quality: Callable[[Any], None], message_type: Callable[[Any], None]
) -> CallbacksT:
    """Returns event callbacks that replace those with which rclpy logs each endpoint that does not fit.

    Args:
        kind: The type of callbacks: those of a publisher or of a subscription.
        quality: Called when an endpoint has an incompatible quality of service.
        message_type: Called when an endpoint has another type of messages; rclpy 3.3 does not notice these.
    """
    callbacks = {"incompatible_qos": quality, "incompatible_type": message_type}
    return kind(**{name: each for name, each in callbacks.items() if name in inspect.signature(kind).parameters})


def is_heard(publishers: Iterable[Publisher]) -> bool:
    """Returns whether any publisher has a subscriber; one that another thread has destroyed counts as none."""
    try:
        return any(publisher.get_subscription_count() > 0 for publisher in publishers)
    except InvalidHandle:
        return False


def given_parameters(node: Node) -> tuple[str, ...]:
    """Returns the sorted names of the parameters that a node gets on the command line and in files, declared or not.

    The list is empty if rclpy keeps them elsewhere.
    """
    return tuple(sorted(getattr(node, "_parameter_overrides", ())))


def guard_transitions(node: LifecycleNode, refused: Callable[[RuntimeError], None]) -> None:
    """Refuses a request for a transition that the present state does not have.

    Without this, such a request ends the process in rclpy. If rclpy names its service differently, nothing is changed.

    Args:
        node: Lifecycle node whose transitions are guarded.
        refused: Called with the exception that rclpy raised for the request.
    """
    service = getattr(node, "_service_change_state", None)
    change_state = getattr(service, "callback", None)
    if change_state is None:
        return

    def guarded(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        try:
            return change_state(request, response)
        except RuntimeError as error:
            refused(error)
            response.success = False
            return response

    service.callback = guarded


def has_begun(task: Task) -> bool:
    """Returns whether a task has begun or ended; true if rclpy does not say, so that nobody waits for it."""
    executing = getattr(task, "executing", None)
    return executing is None or executing() or task.done()


class CountingActionServer(ActionServer):
    """An action server that knows which results have not been sent yet.

    rclpy has no public interface for this. Without the private name of its results, none counts as unsent. Without that
    of the method that sends them, all do, and whoever waits for them waits as long as it may.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._sent: WeakSet[Future] = WeakSet()
        super().__init__(*args, **options)

    def unsent(self) -> int:
        """Returns the number of goals whose result has not been sent to anybody."""
        return sum(future not in self._sent for future in list(getattr(self, "_result_futures", {}).values()))

    def _send_result_response(self, request_header: Any, future: Future) -> None:
        with suppress(InvalidHandle):  # the server was closed before the result could be sent
            super()._send_result_response(request_header, future)
        self._sent.add(future)


class SubscriptionWait:
    """Waits for the messages of some subscriptions, separately from everything else that their node waits for.

    It works only with ``HAS_WAIT_SETS``.

    Args:
        subscriptions: At least one subscription; none may be destroyed before the last wait is over.
        context: Context of their node.
    """

    def __init__(self, subscriptions: Iterable[Subscription], context: Context) -> None:
        self._subscriptions = list(subscriptions)
        self._wake = _rclpy.GuardCondition(context.handle)
        self._wait_set = _rclpy.WaitSet(len(self._subscriptions), 1, 0, 0, 0, 0, context.handle)

    def wake(self) -> None:
        """Ends the present wait, or the next one; safe to call from any thread."""
        self._wake.trigger_guard_condition()

    def ready(self, longest_ns: int) -> list[Subscription]:
        """Waits for messages for at most ``longest_ns`` nanoseconds; returns the subscriptions that have one.

        Raises:
            RuntimeError: A subscription was destroyed, or rclpy was shut down.
        """
        self._wait_set.clear_entities()
        self._wait_set.add_guard_condition(self._wake)
        # The handles are held, so that a subscription that is destroyed meanwhile lives until the wait is over.
        with ExitStack() as held:
            for subscription in self._subscriptions:
                held.enter_context(subscription.handle)
                self._wait_set.add_subscription(subscription.handle)
            self._wait_set.wait(longest_ns)
            ready = self._wait_set.get_ready_entities("subscription")
        return [subscription for subscription in self._subscriptions if subscription.handle.pointer in ready]


def take(subscription: Subscription) -> Any | None:
    """Takes the oldest waiting message of a subscription, or its bytes if it is raw; ``None`` if there is none."""
    with subscription.handle:
        taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
    _forgetter()()
    return None if taken is None else taken[0]


@lru_cache(maxsize=1)
def _forgetter() -> Callable[[], None]:
    """Returns a function that resets the error state that a broken message leaves in a thread.

    rclpy does not reset it, so that rcutils would write a dozen lines about it at the next broken message.
    """
    # The library is already loaded as a part of rclpy. If it has another name, these lines are written.
    try:
        return ctypes.CDLL("librcutils.so").rcutils_reset_error
    except (OSError, AttributeError):
        return lambda: None
