# SPDX-License-Identifier: Apache-2.0
"""All that this package needs of rclpy beyond its public names in every release, with what is done where it is missing.

rclpy 3.3 (Humble) lacks some public names of later releases, and a few things can only be had by private ones, which a
release may change without a word.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import lru_cache
from typing import Any

from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.subscription import Subscription
from rclpy.task import Task

try:
    from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
except ImportError:
    _rclpy = None

HAS_WAIT_SETS = hasattr(_rclpy, "WaitSet") and hasattr(_rclpy, "GuardCondition")
"""Whether ``SubscriptionWait`` works; without it a node's executor has to serve all of its subscriptions."""


def on_set_parameters(
    node: Node, check: Callable[[list[Parameter]], SetParametersResult], apply: Callable[[list[Parameter]], None]
) -> None:
    """Has parameters checked before they change, and what was accepted applied after they did.

    rclpy 3.3 tells of accepted changes only beforehand: there they are applied at the end of the check.

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
    """How many publishers a subscription is connected to; in rclpy 3.3 how many its topic has.

    Args:
        node: Node of the subscription.
        subscription: Subscription of interest.
    """
    if hasattr(subscription, "get_publisher_count"):
        return subscription.get_publisher_count()
    return node.count_publishers(subscription.topic_name)


def is_heard(publishers: Iterable[Publisher]) -> bool:
    """Whether anybody listens to any of them; nobody does to one that another thread has destroyed."""
    try:
        return any(publisher.get_subscription_count() > 0 for publisher in publishers)
    except InvalidHandle:
        return False


def given_parameters(node: Node) -> tuple[str, ...]:
    """Lists the parameters that the command line and files give a node, declared or not, sorted.

    The list is empty where rclpy keeps them elsewhere.
    """
    return tuple(sorted(getattr(node, "_parameter_overrides", ())))


def guard_transitions(node: LifecycleNode, refused: Callable[[RuntimeError], None]) -> None:
    """Answers a request for a transition that the present state does not have with "no success".

    Left to rclpy such a request ends the process. Where rclpy calls the service by other names, it is left to rclpy.

    Args:
        node: Node whose state is changed.
        refused: Called with what rclpy says of the request.
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
    """Whether a thread has begun or ended a task; true where rclpy does not tell, so that nobody waits for it."""
    executing = getattr(task, "executing", None)
    return executing is None or executing() or task.done()


class SubscriptionWait:
    """Waits for the messages of some subscriptions, apart from all else that their node waits for.

    Only where ``HAS_WAIT_SETS``.

    Args:
        subscriptions: At least one; they must not be destroyed before the last wait is over.
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
        """Waits for messages, nanoseconds at most; returns the subscriptions that have one.

        Raises:
            RuntimeError: A subscription was destroyed, or rclpy was shut down; rclpy's errors are of this type.
        """
        self._wait_set.clear_entities()
        self._wait_set.add_guard_condition(self._wake)
        # Held, so that one that is destroyed meanwhile lives until the wait is over.
        with ExitStack() as held:
            for subscription in self._subscriptions:
                held.enter_context(subscription.handle)
                self._wait_set.add_subscription(subscription.handle)
            self._wait_set.wait(longest_ns)
            ready = self._wait_set.get_ready_entities("subscription")
        return [subscription for subscription in self._subscriptions if subscription.handle.pointer in ready]


def take(subscription: Subscription) -> Any | None:
    """Takes the oldest message that waits in a subscription, or its bytes where it is raw; ``None`` where none does."""
    with subscription.handle:
        taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
    _forgetter()()
    return None if taken is None else taken[0]


@lru_cache(maxsize=1)
def _forgetter() -> Callable[[], None]:
    """What forgets the error that a broken message left in this thread, whether or not a good one was taken behind it.

    rclpy leaves it there, and then the next broken message has rcutils write a dozen lines about the first.
    """
    # Loaded already, as a part of rclpy; where it goes by another name, the lines remain.
    try:
        return ctypes.CDLL("librcutils.so").rcutils_reset_error
    except (OSError, AttributeError):
        return lambda: None
