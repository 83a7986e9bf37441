# SPDX-License-Identifier: Apache-2.0
"""An action client for nodes that another thread spins."""

from __future__ import annotations

import threading
from typing import Any

from rclpy.action import ActionClient
from rclpy.task import Future


class GoalClient(ActionClient):
    """An action client that may ask on one thread while another thread spins its node.

    rclpy notes a request only after it was sent. An answer that another thread takes before that is thrown away, and
    its caller waits for ever.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._asking = threading.RLock()
        super().__init__(*args, **options)

    def send_goal_async(self, *args: Any, **options: Any) -> Future:
        with self._asking:
            return super().send_goal_async(*args, **options)

    def _cancel_goal_async(self, *args: Any) -> Future:
        with self._asking:
            return super()._cancel_goal_async(*args)

    def _get_result_async(self, *args: Any) -> Future:
        with self._asking:
            return super()._get_result_async(*args)

    async def execute(self, taken_data: Any) -> None:
        with self._asking:
            pass  # what is being sent is noted now
        await super().execute(taken_data)
