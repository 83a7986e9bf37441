# SPDX-License-Identifier: Apache-2.0
"""Fetches published weights while another model serves."""

from __future__ import annotations

import threading
from collections.abc import Callable

from clip_seg_ros.nodes.common.faults import FaultLog
from clip_seg_ros.nodes.common.statuses import StatusTopic
from clip_seg_ros.zoo.fetching import NotFetched, announcement, fetch
from clip_seg_ros.zoo.public_weights import AGAIN

COMMAND = "use auto"
"""The command as which the statuses name the fetching, though nobody gave it."""
PAUSES_S = (60.0, 120.0, 240.0, 480.0, 960.0)
"""The times in seconds until the next attempts; the last one stands for all that follow."""


class Fetching:
    """Fetches published weights in a process of its own, reports the progress, and tries again after a failure.

    Args:
        status: Topic for the start, the progress and the failure.
        faults: Log whose fault "download" stands until the weights are there.
        serving: Returns the name of the model that serves meanwhile.
        take_over: Called with an id, a command and the name of weights that are there now; it completes the command.
    """

    def __init__(
        self,
        status: StatusTopic,
        faults: FaultLog,
        serving: Callable[[], str | None],
        take_over: Callable[[int, str, str], None],
    ) -> None:
        self._status, self._faults, self._serving, self._take_over = status, faults, serving, take_over
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.progress = ""
        """What is being fetched, and how far it is; empty if nothing is."""

    def start(self, name: str) -> None:
        """Begins to fetch the weights ``name``, one of ``PUBLIC_WEIGHTS``."""
        self.stop()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(name, self._ended), name="fetching", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the process and the attempts; what has arrived is kept for the next time."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
            self._thread = None

    def _run(self, name: str, ended: threading.Event) -> None:
        attempt = 0
        while not ended.is_set():
            pause_s = PAUSES_S[min(attempt, len(PAUSES_S) - 1)]
            command_id = self._status.next_id()
            try:
                self._fetch(name, command_id, ended)
            except NotFetched as failed:
                # The message was written for somebody who typed the command.
                why = str(failed) if failed.is_final else str(failed).replace(AGAIN, "wait for the next attempt")
                again = "" if failed.is_final else f", and this node tries again by itself in {pause_s / 60:g} min"
                note = f"{name} was not fetched: {why}; {self._serving()} serves on{again}"
                self._faults.report("download", name, note)
                self._tell(ended, self._status.fail, command_id, note)
                if failed.is_final or ended.wait(pause_s):
                    return
                attempt += 1
            else:
                self._faults.clear("download")
                if not ended.is_set():
                    self._take_over(command_id, COMMAND, name)
                return
            finally:
                self.progress = ""

    def _fetch(self, name: str, command_id: int, ended: threading.Event) -> None:
        """Fetches once; raises NotFetched. It returns early if it ``ended``."""
        self._tell(ended, self._status.accept, command_id, announcement(name, self._serving()))

        def on_progress(progress: str, is_step: bool) -> None:
            self.progress = progress
            if is_step:
                self._tell(ended, self._status.accept, command_id, progress)

        fetch(name, ended, on_progress)

    @staticmethod
    def _tell(ended: threading.Event, say: Callable[[int, str, str], None], command_id: int, note: str) -> None:
        if not ended.is_set():
            say(command_id, COMMAND, note)
