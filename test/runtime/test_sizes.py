# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest

from clip_seg_ros.runtime.sizes import BuiltSizes


def make(build=lambda size: f"{size[0]}x{size[1]}", **limits) -> BuiltSizes[str]:
    return BuiltSizes(build, **{"capacity": 2, "patience": 3, "unused_for": 5, **limits})


def ask(sizes: BuiltSizes[str], size: tuple[int, int], times: int) -> list[str | None]:
    found = []
    for _ in range(times):
        found.append(sizes.get(size))
        sizes.wait()
    return found


def test_a_size_is_built_after_a_few_images_of_it() -> None:
    assert ask(make(), (4, 6), 5) == [None, None, None, "4x6", "4x6"]


def test_images_of_ever_changing_sizes_build_nothing() -> None:
    sizes = make(build=lambda size: pytest.fail("it was built"))
    for side in range(1000):
        assert sizes.get((side, side)) is None
        sizes.get((side, side))

    sizes.wait()
    assert len(sizes._asked) <= 64


def test_nobody_waits_while_a_size_is_built_and_one_is_built_at_a_time() -> None:
    go_on, began = threading.Event(), []

    def build(size: tuple[int, int]) -> str:
        began.append(size)
        assert go_on.wait(60)
        return "built"

    sizes = make(build=build, patience=1)
    assert sizes.get((1, 1)) is None
    assert sizes.get((2, 2)) is None
    assert sizes.get((1, 1)) is None
    go_on.set()
    sizes.wait()

    assert began == [(1, 1)]
    assert sizes.get((1, 1)) == "built"


def test_a_size_takes_the_place_of_one_that_is_not_used_any_more() -> None:
    sizes = make(patience=1)
    for size in ((1, 1), (2, 2)):
        ask(sizes, size, 2)
    assert ask(sizes, (3, 3), 3) == [None, None, None], "both others were just used"
    assert ask(sizes, (2, 2), 1) == ["2x2"]
    ask(sizes, (2, 2), 5)

    assert ask(sizes, (3, 3), 2) == [None, "3x3"]
    assert sizes.get((1, 1)) is None
    assert sizes.values() == ("3x3", "2x2")


def test_what_cannot_be_built_is_tried_once(caplog: pytest.LogCaptureFixture) -> None:
    tried = []

    def build(size: tuple[int, int]) -> str:
        tried.append(size)
        raise RuntimeError("too large")

    assert ask(make(build=build, patience=1), (4, 6), 4) == [None] * 4
    assert tried == [(4, 6)]
    assert "images of 6x4 stay with the slower engine: too large" in caplog.text


def test_sizes_without_end_that_cannot_be_built_are_not_all_remembered() -> None:
    sizes = make(build=lambda size: 1 // 0, patience=1)
    for side in range(1, 150):
        ask(sizes, (side, side), 1)
    assert 1 <= len(sizes._hopeless) <= 64


def test_a_size_can_be_prepared() -> None:
    sizes = make()
    assert sizes.prepare((4, 6)) == "4x6"
    assert sizes.get((4, 6)) == "4x6"
