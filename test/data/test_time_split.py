# SPDX-License-Identifier: Apache-2.0
"""Held-out images are the last ones of each recording, and no image beside them is learnt."""

from __future__ import annotations

from clip_seg_ros.data.time_split import Part, Taken, time_parts

SECOND = 1_000_000_000


def parts(images: list[Taken]) -> list[Part]:
    return list(time_parts(lambda: images))


def recording(source: str, count: int, begin_ns: int = 0, step_ns: int = SECOND, topic: str = "/camera") -> list[Taken]:
    return [Taken(source, topic, begin_ns + step_ns * number) for number in range(count)]


def test_the_last_fifth_of_the_time_is_held_out_after_a_gap() -> None:
    found = parts(recording("a", 101))
    assert found == ["train"] * 75 + ["between"] * 5 + ["val"] * 21


def test_a_folder_is_cut_by_its_order() -> None:
    found = parts([Taken("pictures", "", 0)] * 10)
    assert found == ["train"] * 8 + ["val"] * 2


def test_two_cameras_of_a_recording_are_cut_at_the_same_time() -> None:
    # The second camera has images in the first half of the time only.
    first, second = recording("a.left", 100), recording("a.right", 50)
    found = parts([*first, *second])
    assert found[100:] == ["train"] * 50
    assert found[:100].count("val") == 20


def test_recordings_of_other_days_are_cut_apart() -> None:
    found = parts([*recording("a", 10), *recording("b", 10, begin_ns=86_400 * SECOND)])
    assert [found[:10].count("val"), found[10:].count("val")] == [2, 2]


def test_videos_which_all_begin_at_0_are_cut_apart() -> None:
    found = parts([*recording("a", 10, topic=""), *recording("b", 40, topic="")])
    assert [found[:10].count("val"), found[10:].count("val")] == [2, 8]


def test_every_fifth_of_sources_with_few_images_is_held_out() -> None:
    found = parts([image for number in range(10) for image in recording(str(number), 2, topic="")])
    assert found == (["train"] * 8 + ["val"] * 2) * 2


def test_one_image_is_for_training() -> None:
    assert parts(recording("a", 1)) == ["train"]
