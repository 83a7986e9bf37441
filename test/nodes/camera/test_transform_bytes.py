# SPDX-License-Identifier: Apache-2.0
"""tf messages read from their bytes, as the middleware writes them."""

from __future__ import annotations

import pytest

pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed")
from geometry_msgs.msg import TransformStamped
from rclpy.serialization import serialize_message
from tf2_msgs.msg import TFMessage

from clip_seg_ros.nodes.camera.transform_bytes import Layout, Layouts, transforms_of


def transform(parent: str, child: str, number: float) -> TransformStamped:
    made = TransformStamped(child_frame_id=child)
    made.header.frame_id, made.header.stamp.sec, made.header.stamp.nanosec = parent, int(number) - 3, 999_999_999
    shift, turn = made.transform.translation, made.transform.rotation
    shift.x, shift.y, shift.z = number, -number, number / 3
    turn.x, turn.y, turn.z, turn.w = 0.1 * number, 0.2, -0.3, 1e-300
    return made


def raw(*transforms: TransformStamped) -> bytes:
    return bytes(serialize_message(TFMessage(transforms=list(transforms))))


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_every_transform_is_read_as_the_middleware_reads_it(count):
    # Names of all lengths, for they shift what is behind them; "", too, and letters of two bytes.
    names = ["", "ä", *("abcdefghijklmnop"[:length] for length in range(1, 17))]
    for shift in range(len(names)):
        sent = [
            transform(names[(shift + index) % len(names)], names[(shift + 3 * index) % len(names)], 7.0 + index)
            for index in range(count)
        ]
        message = raw(*sent)
        layout = Layout(message)
        assert [entry.read(message) for entry in layout.entries] == sent == transforms_of(message)
        stamps = [each.header.stamp for each in sent]
        assert [entry.stamp_ns(message) for entry in layout.entries] == [
            stamp.sec * 10**9 + stamp.nanosec for stamp in stamps
        ]


@pytest.mark.parametrize("count", [1, 2, 40])
def test_the_same_names_are_the_same_layout_and_others_are_not(count):
    def message(number: float, last: str) -> bytes:
        return raw(
            *(transform("base", f"link{index:02}", number) for index in range(count - 1)),
            transform("base", last, number),
        )

    layouts = Layouts()
    first, new = layouts.of(message(1.0, "last"))
    assert new
    assert layouts.of(message(2.0, "last")) == (first, False)
    other, new = layouts.of(message(3.0, "tsal"))
    assert new
    assert other is not first
    assert other.entries[-1].child == "tsal"
    assert layouts.of(message(4.0, "last"))[0].entries[-1].child == "last"


@pytest.mark.parametrize("count", [1, 3])
def test_bytes_that_only_fill_up_and_numbers_do_not_make_another_layout(count):
    sent = [transform("base", "arm" + "x" * index, 1.1) for index in range(count)]
    other = [transform("base", "arm" + "x" * index, 7.7) for index in range(count)]
    message, filled = raw(*sent), bytearray(raw(*other))
    filled[25:28] = b"abc"  # behind "base" and its zero
    layouts = Layouts()
    layout, _ = layouts.of(message)
    assert layouts.of(bytes(filled)) == (layout, False)
    assert [entry.read(bytes(filled)) for entry in layout.entries] == other


def test_layouts_of_many_transforms_are_forgotten_sooner():
    def message(name: str) -> bytes:
        return raw(*(transform("map", f"{name}{index:04}", 1.0) for index in range(5000)))

    layouts = Layouts()
    assert [layouts.of(message(name))[1] for name in ("a", "a", "bb", "ccc", "a")] == [True, False, True, True, False]
    assert [layouts.of(message(name))[1] for name in ("dddd", "a")] == [True, True]


def test_an_empty_message_has_no_entries():
    assert Layout(raw()).entries == []


def test_slashes_in_front_of_names_are_dropped_as_tf2_does():
    (entry,) = Layout(raw(transform("/map", "/base/arm", 1.0))).entries
    assert (entry.parent, entry.child) == ("map", "base/arm")


def test_bytes_of_anything_else_are_refused():
    good = raw(transform("map", "base", 1.0), transform("base", "camera", 2.0))
    for broken in (
        *(good[:size] for size in range(len(good))),
        good + b"\0" * 4,
        b"\x00\x00" + good[2:],
        good[:4] + b"\xff" * 4 + good[8:],
        good[:16] + b"\xff" * 4 + good[20:],
        good[:16] + b"\0" * 4 + good[20:],
    ):
        with pytest.raises(ValueError, match=r"little-endian|too short|too many|without an end"):
            Layouts().of(broken)
