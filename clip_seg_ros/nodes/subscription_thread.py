"""Subscriptions that are served on a thread of their own.

Whenever anything happens, rclpy's executors ask every entity of a node in Python whether it has work. With a node's
services, timers and parameters that makes an image a millisecond or two older, and keeps Python's lock from the thread
that runs the model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack

from rclpy.callback_groups import CallbackGroup
from rclpy.context import Context
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.subscription import Subscription

_LONGEST_WAIT_NS = 500_000_000
"""After which it is seen that rclpy was shut down."""
_PAUSE_S = 0.1
"""After a wait that failed, for the next one may fail at once."""


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
        on_error: Called with whatever goes wrong, in a callback or ahead of it; the thread lives on.
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
            try:
                ready = self._ready()
            except Exception as error:  # such as a subscription that was destroyed too early
                self._tell(error)
                time.sleep(_PAUSE_S)
                continue
            for subscription in ready:
                try:
                    taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
                    if taken is not None and not self._closed:
                        subscription.callback(taken[0])
                except Exception as error:  # whatever it is, the next message deserves its chance
                    self._tell(error)

    def _tell(self, error: Exception) -> None:
        # While rclpy ends, everything fails, and rightly so.
        if self._context.ok() and not self._closed:
            self._on_error(error)

    def _ready(self) -> list[Subscription]:
        """Waits for messages; returns the subscriptions that have one."""
        self._wait_set.clear_entities()
        self._wait_set.add_guard_condition(self._wake)
        # Held, so that one that is destroyed meanwhile lives until the wait is over.
        with ExitStack() as held:
            for subscription in self._subscriptions:
                held.enter_context(subscription.handle)
                self._wait_set.add_subscription(subscription.handle)
            self._wait_set.wait(_LONGEST_WAIT_NS)
            ready = self._wait_set.get_ready_entities("subscription")
        return [subscription for subscription in self._subscriptions if subscription.handle.pointer in ready]
