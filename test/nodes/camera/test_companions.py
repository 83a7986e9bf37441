# SPDX-License-Identifier: Apache-2.0
import threading
import time

from clip_seg_ros.nodes.camera.companions import StampedBuffer

SECOND = 1_000_000_000


def test_the_nearest_within_tolerance():
    buffer = StampedBuffer(wait_s=0.0)
    for stamp_s in (1.00, 1.05, 1.10):
        buffer.add(round(stamp_s * SECOND), stamp_s)
    assert buffer.nearest(round(1.06 * SECOND), 0.02, expected=False) == 1.05
    assert buffer.nearest(round(1.30 * SECOND), 0.02, expected=False) is None


def test_the_oldest_make_room():
    buffer = StampedBuffer(size=2, wait_s=0.0)
    for stamp in (1, 2, 3):
        buffer.add(stamp, stamp)
    assert buffer.nearest(1, 0.0, expected=False) is None
    assert buffer.nearest(2, 0.0, expected=False) == 2


def test_the_oldest_make_room_for_large_ones():
    buffer = StampedBuffer(most_bytes=100, wait_s=0.0)
    for stamp, size_bytes in ((1, 40), (2, 40), (3, 40)):
        buffer.add(stamp, stamp, size_bytes)
    assert [buffer.peek(stamp, 0.0) for stamp in (1, 2, 3)] == [None, 2, 3]
    buffer.add(4, 4, 200)
    assert [buffer.peek(stamp, 0.0) for stamp in (2, 3, 4)] == [None, None, 4]


def test_waits_for_one_that_is_on_its_way():
    buffer = StampedBuffer(wait_s=30.0)
    buffer.add(1, "older")
    threading.Timer(0.1, buffer.add, (5, "right")).start()
    assert buffer.nearest(5, 0.0, expected=True) == "right"


def test_does_not_wait_once_a_newer_one_has_come():
    buffer = StampedBuffer(wait_s=3600.0)
    buffer.add(9, "newer")
    assert buffer.nearest(5, 0.0, expected=True) is None


def test_does_not_wait_again_for_a_topic_that_was_late():
    buffer = StampedBuffer(wait_s=2.0)
    waits = []
    for _ in range(2):
        start = time.monotonic()
        assert buffer.nearest(5, 0.0, expected=True) is None
        waits.append(time.monotonic() - start)
    assert waits[0] >= 2.0 > waits[1]


def test_what_was_let_go_of_is_not_found():
    buffer = StampedBuffer(wait_s=0.0)
    buffer.add(1, "gone")
    buffer.clear()
    assert buffer.nearest(1, 0.0, expected=False) is None
