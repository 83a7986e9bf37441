# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

from clip_seg_ros.viewer.pace import STALLED_S, Pace
from clip_seg_ros.viewer.pictures import Form


def send(pace: Pace, count: int, link_s: float, numbers: itertools.count) -> None:
    for number in itertools.islice(numbers, count):
        pace.sent(number, float(number))
        pace.drawn(number, number + link_s)


def test_no_more_than_two_pictures_are_under_way() -> None:
    pace = Pace()
    pace.sent(1, 0.0)
    assert pace.is_ready()
    pace.sent(2, 0.1)
    assert not pace.is_ready()

    pace.drawn(1, 0.2)
    assert pace.is_ready()


def test_a_picture_that_was_skipped_is_waited_for_no_longer() -> None:
    pace = Pace()
    pace.sent(1, 0.0)
    pace.sent(2, 0.1)

    pace.drawn(2, 0.3)
    assert pace.is_ready()
    pace.sent(3, 0.4)
    assert pace.is_ready()


def test_a_slow_link_gets_smaller_pictures_and_a_fast_one_larger_ones_again() -> None:
    pace, numbers = Pace(), itertools.count(1)
    pace.wanted_px = 900.0
    assert pace.form() == Form("overlay", 960, 80)

    send(pace, 20, 0.6, numbers)
    assert pace.form() == Form("overlay", 960, 60)
    send(pace, 20, 0.6, numbers)
    assert pace.form() == Form("overlay", 640, 60)
    send(pace, 200, 0.6, numbers)
    assert pace.form() == Form("overlay", 320, 60)

    send(pace, 300, 0.01, numbers)
    assert pace.form() == Form("overlay", 960, 80)


def test_a_usual_link_changes_nothing() -> None:
    pace = Pace()
    send(pace, 200, 0.1, itertools.count(1))

    assert pace.form() == Form("overlay", 640, 80)
    assert abs(pace.link_s - 0.1) < 1e-6


def test_what_was_never_sent_tells_nothing() -> None:
    pace = Pace()
    pace.drawn(7, 1.0)

    assert pace.link_s is None


def test_a_viewer_that_draws_nothing_has_stalled_until_it_draws_or_rests() -> None:
    pace = Pace()
    assert not pace.is_stalled(1e9)
    pace.sent(1, 100.0)
    pace.sent(2, 101.0)
    assert not pace.is_stalled(100.0 + STALLED_S)
    assert pace.is_stalled(100.5 + STALLED_S)

    pace.drawn(1, 111.0)
    assert not pace.is_stalled(111.0)
    assert pace.is_stalled(101.5 + STALLED_S)
    pace.rest()
    assert not pace.is_stalled(1e9)
    assert pace.is_ready()
