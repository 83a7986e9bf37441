# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest

from clip_seg_ros.pipeline import stopwatch
from clip_seg_ros.pipeline.stopwatch import Stopwatch, timed


class Worker:
    def __init__(self) -> None:
        self.stopwatch = Stopwatch()

    @timed
    def work(self, fails: bool = False) -> str:
        if fails:
            raise RuntimeError("broken")
        return "done"


def test_each_thread_counts_its_own_time_also_of_failures(monkeypatch) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: float(next(ticks)))
    worker = Worker()
    assert worker.work() == "done"
    with pytest.raises(RuntimeError, match="broken"):
        worker.work(fails=True)
    assert worker.stopwatch.seconds == 2.0
    elsewhere: list[float] = []
    thread = threading.Thread(target=lambda: elsewhere.append(worker.stopwatch.seconds))
    thread.start()
    thread.join()
    assert elsewhere == [0.0]
