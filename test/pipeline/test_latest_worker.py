# SPDX-License-Identifier: Apache-2.0
import logging
import subprocess
import sys
import threading
import weakref

import pytest

from clip_seg_ros.pipeline.latest_worker import LatestWorker

PATIENCE_S = 10.0


class Gate:
    """Work that stops until it is let go, and keeps what it was given."""

    def __init__(self):
        self.started = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.done = []

    def __call__(self, item):
        self.started.release()
        assert self.go.acquire(timeout=PATIENCE_S)
        self.done.append(item)


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def worker(gate):
    worker = LatestWorker(gate, on_error=lambda error: None)
    yield worker
    gate.go.release(100)
    worker.close()


def test_only_the_newest_waiting_item_is_worked_on(gate, worker):
    worker.put(1)
    assert gate.started.acquire(timeout=PATIENCE_S)
    for item in (2, 3, 4):
        worker.put(item)
    assert worker.dropped == 2
    gate.go.release(2)
    assert gate.started.acquire(timeout=PATIENCE_S)
    assert worker.close(PATIENCE_S)
    assert gate.done == [1, 4]
    assert worker.dropped == 2


def test_work_may_take_what_waits_of_other_sources():
    started, go, done = threading.Event(), threading.Event(), []

    def work(item):
        started.set()
        assert go.wait(PATIENCE_S)
        done.append([item, *worker.take(2)])

    worker = LatestWorker(work, on_error=done.append)
    worker.put("a1", "a")
    assert started.wait(PATIENCE_S)
    for item in ("a2", "b1", "c1", "d1", "b2"):
        worker.put(item, item[0])
    go.set()
    for _ in range(500):
        if len(done) == 2:
            break
        threading.Event().wait(0.01)
    assert worker.close(PATIENCE_S)
    # Those that were never served come first.
    assert done == [["a1", "b2", "c1"], ["d1", "a2"]]
    assert worker.dropped == 1


def test_sources_take_turns_and_keep_their_newest(gate, worker):
    worker.put("a1", "a")
    assert gate.started.acquire(timeout=PATIENCE_S)
    replaced = [worker.put(item, item[0]) for item in ("a2", "b1", "a3", "c1", "b2")]
    assert replaced == [False, False, True, False, True]
    assert worker.dropped == 2
    for item in ("a4", "a5"):
        gate.go.release()
        assert gate.started.acquire(timeout=PATIENCE_S)
        worker.put(item, "a")  # a fast camera does not keep the others from their turn
    gate.go.release(2)
    assert gate.started.acquire(timeout=PATIENCE_S)
    assert worker.close(PATIENCE_S)
    assert gate.done == ["a1", "b2", "c1", "a5"]


def test_none_is_an_item_too(gate, worker):
    worker.put(None)
    assert gate.started.acquire(timeout=PATIENCE_S)


def test_an_exception_is_reported_and_the_thread_lives_on():
    errors, done = [], threading.Event()

    def work(item):
        if item == "bad":
            raise RuntimeError("no luck")
        done.set()

    reported = threading.Semaphore(0)

    def on_error(error):
        errors.append(error)
        reported.release()

    worker = LatestWorker(work, on_error)
    for _ in range(3):
        worker.put("bad")
        assert reported.acquire(timeout=PATIENCE_S)
    worker.put("good")
    assert done.wait(PATIENCE_S)
    assert worker.close(PATIENCE_S)
    assert [str(error) for error in errors] == ["no luck"] * 3


def test_the_thread_outlives_a_failing_report(caplog):
    tried, done = threading.Semaphore(0), threading.Event()

    def work(item):
        tried.release()
        if item == "bad":
            raise RuntimeError("no luck")
        done.set()

    def on_error(error):
        raise OSError("nobody listens")

    worker = LatestWorker(work, on_error)
    with caplog.at_level(logging.ERROR):
        worker.put("bad")
        assert tried.acquire(timeout=PATIENCE_S)
        worker.put("good")
        assert done.wait(PATIENCE_S)
        worker.close(PATIENCE_S)
    assert "nobody listens" in caplog.text
    assert "no luck" in caplog.text


def test_close_ends_the_thread_and_may_be_repeated():
    before = threading.active_count()
    worker = LatestWorker(lambda item: None, on_error=print)
    assert threading.active_count() == before + 1
    assert worker.close(PATIENCE_S)
    assert worker.close(PATIENCE_S)
    assert threading.active_count() == before


def test_close_drops_what_waits(gate, worker):
    worker.put(1)
    assert gate.started.acquire(timeout=PATIENCE_S)
    worker.put(2)
    assert not worker.close(timeout_s=0.01)  # 1 is still worked on
    assert worker.dropped == 1
    gate.go.release(2)
    assert worker.close(PATIENCE_S)
    assert gate.done == [1]


def test_items_after_close_are_ignored():
    done = []
    worker = LatestWorker(done.append, on_error=print)
    worker.close(PATIENCE_S)
    worker.put(1)
    assert done == []
    assert worker.dropped == 0


def test_work_that_never_returns_does_not_block_shutdown():
    program = """
import threading
from clip_seg_ros.pipeline.latest_worker import LatestWorker
started = threading.Event()
worker = LatestWorker(lambda item: (started.set(), threading.Event().wait()), print)
worker.put(1)
started.wait()
print(worker.close(timeout_s=0.01))
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "False\n", "")


def test_work_may_close_its_own_worker():
    closed = threading.Event()

    def work(item):
        worker.close()
        closed.set()

    worker = LatestWorker(work, on_error=print)
    worker.put(1)
    assert closed.wait(PATIENCE_S)
    assert worker.close(PATIENCE_S)


def test_a_finished_item_is_let_go():
    """Frames are large: the last one must not be kept alive while nothing comes."""

    class Frame:
        pass

    frame, released = Frame(), threading.Event()
    weakref.finalize(frame, released.set)
    worker = LatestWorker(lambda item: None, on_error=print)
    worker.put(frame)
    del frame
    assert released.wait(PATIENCE_S)
    worker.close()
