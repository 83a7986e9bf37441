# SPDX-License-Identifier: Apache-2.0
import threading
import weakref

import pytest

from clip_seg_ros.pipeline.model_host import ModelHost

PATIENCE_S = 10.0


class Model:
    """Stands where a predictor would: the host only keeps it."""

    def __init__(self, name):
        self.name = name
        self.itself = self  # as modules and their hooks do


class Loads:
    """Loads that wait to be let go, but for the first."""

    def __init__(self):
        self.started, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.ready, self.failed, self.told = [], [], threading.Semaphore(0)
        self.repaired = set()
        self.host = ModelHost(self.load, self.on_ready, self.on_failed)
        self.host.start("first")

    def load(self, name):
        fails = name.startswith("bad") and name not in self.repaired
        if name != "first":
            self.started.release()
            assert self.go.acquire(timeout=PATIENCE_S)
        if fails:
            raise ValueError(f"there is no {name}")
        return Model(name)

    def on_ready(self, name):
        self.ready.append((name, self.host.predictor.name))
        self.told.release()

    def on_failed(self, name, error):
        self.failed.append((name, str(error)))
        self.told.release()

    def wait_told(self):
        assert self.told.acquire(timeout=PATIENCE_S)

    def wait_started(self):
        assert self.started.acquire(timeout=PATIENCE_S)


@pytest.fixture
def loads():
    loads = Loads()
    yield loads
    loads.go.release(10)
    loads.host.unload()


def test_the_old_model_serves_until_the_new_one_is_ready(loads):
    loads.host.switch("second")
    loads.wait_started()
    assert loads.host.name == "first"
    assert loads.host.predictor.name == "first"
    loads.go.release()
    loads.wait_told()
    assert loads.ready == [("second", "second")]
    assert loads.host.name == "second"


def test_a_model_that_cannot_be_loaded_leaves_the_old_one(loads):
    loads.host.switch("bad")
    loads.go.release()
    loads.wait_told()
    assert loads.failed == [("bad", "there is no bad")]
    assert loads.host.name == "first"
    assert not loads.ready


def test_the_last_name_wins(loads):
    loads.host.switch("second")
    loads.wait_started()
    loads.host.switch("third")
    loads.host.switch("fourth")
    loads.go.release(2)
    loads.wait_told()
    assert loads.host.name == "fourth"
    assert loads.ready == [("fourth", "fourth")]


@pytest.mark.parametrize("newest", ["second", "first", "bad too"])
def test_a_failure_that_nobody_waits_for_is_not_told(loads, newest):
    loads.host.switch("bad")
    loads.wait_started()
    loads.host.switch(newest)
    loads.go.release(2)
    loads.wait_told()
    serving = "first" if newest == "bad too" else newest
    assert loads.failed == ([("bad too", "there is no bad too")] if newest == "bad too" else [])
    assert loads.ready == ([] if newest == "bad too" else [(newest, newest)])
    assert loads.host.name == loads.host.wanted == serving


@pytest.mark.parametrize("between", [[], ["second"]])
def test_a_name_asked_for_again_gets_another_chance(loads, between):
    loads.host.switch("bad")
    loads.wait_started()
    loads.repaired.add("bad")  # too late for the load under way
    for name in [*between, "bad"]:
        loads.host.switch(name)
    loads.go.release(2)
    loads.wait_told()
    assert loads.failed == []
    assert loads.ready == [("bad", "bad")]
    assert loads.host.name == loads.host.wanted == "bad"


def test_what_serves_already_is_not_loaded_again(loads):
    loads.host.switch("first")
    loads.wait_told()
    assert loads.ready == [("first", "first")]
    assert not loads.started.acquire(blocking=False)


def test_unloading_lets_go_of_all_and_of_what_is_still_loading(loads):
    held = weakref.ref(loads.host.predictor)
    loads.host.switch("second")
    loads.wait_started()
    loads.host.unload()
    assert held() is None
    assert loads.host.name is None
    loads.go.release()
    with pytest.raises(RuntimeError, match="no model is loaded"):
        _ = loads.host.predictor
    with pytest.raises(RuntimeError, match="nothing to switch from"):
        loads.host.switch("third")
    loads.host.start("first")
    assert loads.host.name == "first"
    assert not loads.ready


def test_a_failure_from_before_the_unloading_does_not_stop_a_later_load(loads):
    loads.host.switch("bad")
    loads.wait_started()
    loads.repaired.add("bad")
    loads.host.start("first")
    loads.host.switch("bad")
    loads.wait_started()
    loads.go.release(2)
    loads.wait_told()
    assert loads.failed == []
    assert loads.ready == [("bad", "bad")]


def test_a_first_model_that_fails_leaves_none(loads):
    loads.go.release()
    with pytest.raises(ValueError, match="there is no bad"):
        loads.host.start("bad")
    assert loads.host.name is None


def test_the_same_model_is_loaded_again_only_where_that_is_asked(loads):
    first = loads.host.predictor
    loads.host.switch("first")
    loads.wait_told()
    assert loads.host.predictor is first
    loads.host.switch("first", again=True)
    loads.wait_told()
    assert loads.host.predictor is not first
    assert loads.host.name == "first"
