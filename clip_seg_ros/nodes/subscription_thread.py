"""Subscriptions that are served on a thread of their own.

Whenever anything happens, rclpy's executors ask every entity of a node in Python whether it has work. With a node's
services, timers and parameters that makes an image a millisecond or two older, and keeps Python's lock from the thread
that runs the model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from rclpy.callback_groups import CallbackGroup
from rclpy.context import Context
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.subscription import Subscription

_LONGEST_WAIT_NS = 500_000_000
"""After which it is seen that rclpy was shut down."""


class OwnThreadGroup(CallbackGroup):
    """The callback group of subscriptions that a ``SubscriptionThread`` serves: executors leave them alone."""

    def can_execute(self, entity: object) -> bool:
        """Never."""
        return False

    def beginning_execution(self, entity: object) -> bool:
        """Never."""
        return False

    def ending_execution(self, entity: object) -> None:
        """Nothing to do."""


class SubscriptionThread:
    """Takes the messages of some subscriptions and calls their callbacks, one at a time, until it is closed.

    Args:
        subscriptions: At least one, with an ``OwnThreadGroup`` each; they must outlast the thread.
        context: Of their node.
        on_error: Called with what a callback raises, or a message that cannot be read; the thread lives on.
    """

    def __init__(
        self, subscriptions: Iterable[Subscription], context: Context, on_error: Callable[[Exception], None]
    ) -> None:
        self._subscriptions = list(subscriptions)
        self._context, self._on_error = context, on_error
        self._closed = False
        self._wake = _rclpy.GuardCondition(context.handle)
        self._wait_set = _rclpy.WaitSet(len(self._subscriptions), 1, 0, 0, 0, 0, context.handle)
        # A daemon, so that a callback which never returns cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name="subscriptions", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 2.0) -> bool:
        """Ends the thread, before its subscriptions are destroyed; safe to call again, but not from a callback.

        Returns:
            False when a callback did not end within ``timeout_s``; the thread then ends after it.
        """
        self._closed = True
        self._wake.trigger_guard_condition()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._closed and self._context.ok():
            for subscription in self._ready():
                try:
                    taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
                    if taken is not None and not self._closed:
                        subscription.callback(taken[0])
                except Exception as error:  # whatever it is, the next message deserves its chance
                    # While rclpy ends, everything fails, and rightly so.
                    if self._context.ok():
                        self._on_error(error)

    def _ready(self) -> list[Subscription]:
        """Waits for messages; returns the subscriptions that have one."""
        self._wait_set.clear_entities()
        self._wait_set.add_guard_condition(self._wake)
        for subscription in self._subscriptions:
            self._wait_set.add_subscription(subscription.handle)
        try:
            self._wait_set.wait(_LONGEST_WAIT_NS)
        except _rclpy.RCLError:
            if self._context.ok():
                raise
            return []
        ready = self._wait_set.get_ready_entities("subscription")
        return [subscription for subscription in self._subscriptions if subscription.handle.pointer in ready]
