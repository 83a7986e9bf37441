# SPDX-License-Identifier: Apache-2.0
"""Work that is done beside the next item's, without a queue."""

from __future__ import annotations

import threading
import time

import pytest

from clip_seg_ros.pipeline.second_stage import SecondStage

PATIENCE_S = 10.0


class Gate:
    """Work that stops until it is let go."""

    def __init__(self) -> None:
        self.started, self.go, self.thread = threading.Event(), threading.Event(), ""

    def __call__(self) -> None:
        self.thread = threading.current_thread().name
        self.started.set()
        assert self.go.wait(PATIENCE_S)


def test_work_is_done_beside_the_caller_and_the_next_one_waits_for_it() -> None:
    stage, first, second = SecondStage(on_error=pytest.fail), Gate(), Gate()
    stage.do(first, beside=True)
    assert first.started.wait(PATIENCE_S)
    assert not stage.wait(0.0)
    handed = threading.Event()

    def hand_over() -> None:
        stage.do(second, beside=True)
        handed.set()

    caller = threading.Thread(target=hand_over)
    caller.start()
    assert not handed.wait(0.05)
    assert not second.started.is_set()
    first.go.set()
    assert second.started.wait(PATIENCE_S)
    second.go.set()
    caller.join(PATIENCE_S)
    assert stage.wait(PATIENCE_S)
    assert first.thread == second.thread == "second_stage"
    assert stage.close(PATIENCE_S)


def test_work_that_may_not_be_done_beside_is_done_at_once_but_after_the_rest() -> None:
    stage, seen = SecondStage(on_error=pytest.fail), []

    def slow() -> None:
        time.sleep(0.05)
        seen.append("slow")

    stage.do(slow, beside=True)
    stage.do(lambda: seen.append(threading.current_thread() is threading.main_thread()), beside=False)
    assert seen == ["slow", True]
    assert stage.close(PATIENCE_S)


@pytest.mark.parametrize("beside", [False, True])
def test_an_error_is_told_and_the_next_work_is_done(beside: bool) -> None:
    told, done = [], []
    stage = SecondStage(told.append)
    stage.do(lambda: 1 / 0, beside)
    stage.do(lambda: done.append(True), beside)
    assert stage.close(PATIENCE_S)
    assert [type(error) for error in told] == [ZeroDivisionError]
    assert done == [True]


def test_the_end_waits_for_work_in_progress_but_not_for_ever() -> None:
    stage, gate, late = SecondStage(on_error=pytest.fail), Gate(), []
    stage.do(gate, beside=True)
    assert gate.started.wait(PATIENCE_S)
    assert not stage.close(0.01)
    gate.go.set()
    assert stage.close(PATIENCE_S)
    stage.do(lambda: late.append(True), beside=True)
    assert late == [], "after the end nothing is done beside"


def test_without_work_no_thread_is_started() -> None:
    stage = SecondStage(on_error=pytest.fail)
    stage.do(lambda: None, beside=False)
    assert stage.wait(0.0)
    assert stage.close()
    assert "second_stage" not in [thread.name for thread in threading.enumerate()]
