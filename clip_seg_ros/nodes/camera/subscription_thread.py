# SPDX-License-Identifier: Apache-2.0
"""Serves subscriptions on a thread of their own.

Whenever anything happens, rclpy's executors check in Python every entity of a node for work. With the services, timers
and parameters of a node this delays an image by a millisecond or two, and takes Python's global lock from the thread
that runs the model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from rclpy.callback_groups import CallbackGroup, MutuallyExclusiveCallbackGroup
from rclpy.context import Context
from rclpy.subscription import Subscription

from clip_seg_ros.nodes.common.rclpy_internals import HAS_WAIT_SETS, SubscriptionWait, take

_LONGEST_WAIT_NS = 500_000_000
"""The longest wait, after which the thread checks whether rclpy was shut down."""
_PAUSE_S = 0.1
"""Pause after a failed wait, because the next one may fail at once."""


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


def own_thread_group() -> CallbackGroup:
    """Returns a group for subscriptions of a ``SubscriptionThread``; without wait sets, a group for the executor."""
    return OwnThreadGroup() if HAS_WAIT_SETS else MutuallyExclusiveCallbackGroup()


class SubscriptionThread:
    """Takes the messages of some subscriptions and calls their callbacks, one at a time, until it is closed.

    If rclpy's wait sets are not available, it does nothing, and the node's executor serves the subscriptions.

    Args:
        subscriptions: At least one subscription, each in a group of ``own_thread_group``; they must outlast the thread.
        context: Context of their node.
        on_error: Called with every exception, in a callback or before it; the thread lives on.
        pause_s: Pause in seconds after messages were taken, for topics with many small messages, which are then taken
            together. With 0, each message is taken at once.
    """

    def __init__(
        self,
        subscriptions: Iterable[Subscription],
        context: Context,
        on_error: Callable[[Exception], None],
        pause_s: float = 0.0,
    ) -> None:
        self._context, self._on_error, self._pause_s = context, on_error, pause_s
        self._closed = threading.Event()
        self._wait = SubscriptionWait(subscriptions, context) if HAS_WAIT_SETS else None
        # A daemon, so that a callback which never returns cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name="subscriptions", daemon=True)
        if self._wait is not None:
            self._thread.start()

    def close(self, timeout_s: float = 2.0) -> bool:
        """Ends the thread; call it before the subscriptions are destroyed.

        It is safe to call again, but not from a callback.

        Returns:
            Whether the thread has ended. If a callback takes longer than ``timeout_s``, the thread ends after it.
        """
        self._closed.set()
        if self._wait is None:
            return True
        self._wait.wake()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._closed.is_set() and self._context.ok():
            try:
                ready = self._wait.ready(_LONGEST_WAIT_NS)
            except Exception as error:  # such as a subscription that was destroyed too early
                self._tell(error)
                time.sleep(_PAUSE_S)
                continue
            for subscription in ready:
                # Without a pause, the next wait finds further messages.
                while self._take(subscription) and self._pause_s > 0 and not self._closed.is_set():
                    pass
            if self._pause_s > 0:
                self._closed.wait(self._pause_s)

    def _take(self, subscription: Subscription) -> bool:
        """Takes a message and calls its callback; returns whether there was a message."""
        try:
            message = take(subscription)
        except Exception as error:  # such as a message that does not fit its type
            self._tell(error)
            return False
        if message is None or self._closed.is_set():
            return False
        try:
            subscription.callback(message)
        except Exception as error:  # whatever it is, the next message deserves its chance
            self._tell(error)
        return True

    def _tell(self, error: Exception) -> None:
        # While rclpy shuts down, everything fails as expected.
        if self._context.ok() and not self._closed.is_set():
            self._on_error(error)
