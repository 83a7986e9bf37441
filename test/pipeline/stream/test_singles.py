# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from clip_seg_ros.pipeline.stream.singles import IMAGES, Singles
from clip_seg_ros.types import ObjectRegion


def region(left: int = 10, width: int = 40, prompt: str = "cup", size: tuple[int, int] = (100, 200)) -> ObjectRegion:
    mask = np.zeros(size, bool)
    mask[20:60, left : left + width] = True
    return ObjectRegion.of_mask(prompt, 1, 0.9, mask)


def test_a_region_that_stays_is_known_for_some_images() -> None:
    singles = Singles()
    assert singles.known([region()]) == set()
    singles.remember([region()])
    for _ in range(IMAGES - 1):
        assert singles.known([region(100), region()]) == {1}
    assert singles.known([region()]) == set(), "it is time to look again"


def test_a_region_that_changes_is_unknown() -> None:
    for changed in (region(left=13), region(width=43), region(prompt="box"), region(size=(100, 201))):
        singles = Singles()
        singles.remember([region()])
        assert singles.known([changed]) == set()
        assert singles.known([region()]) == set(), "it was gone for an image"


def test_slow_changes_are_counted_from_the_look_and_not_from_the_last_image() -> None:
    singles = Singles()
    singles.remember([region()])
    assert singles.known([region(left=11)]) == {0}
    assert singles.known([region(left=12)]) == {0}
    assert singles.known([region(left=13)]) == set()


def test_two_regions_are_not_known_by_one() -> None:
    singles = Singles()
    singles.remember([region()])
    assert singles.known([region(), region(left=11)]) == {0}
