# SPDX-License-Identifier: Apache-2.0
"""Near-duplicates are left out, and slow changes are not."""

from __future__ import annotations

import numpy as np

from clip_seg_ros.annotation.job import Selection
from clip_seg_ros.annotation.selection import Chooser


def grey(level):
    return np.full((48, 64, 3), level, np.uint8)


def test_all_are_kept_without_a_least_change():
    chooser = Chooser(Selection())
    assert [chooser.takes(grey(100)) for _ in range(3)] == [True, True, True]


def test_each_image_is_compared_with_the_last_one_that_was_kept():
    chooser = Chooser(Selection(least_change=5 / 255))
    # No step is large enough by itself, and together they are.
    assert [chooser.takes(grey(level)) for level in (100, 102, 104, 106, 108, 112)] == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]


def test_noise_is_no_change():
    rng = np.random.default_rng(0)
    chooser = Chooser(Selection(least_change=0.01))
    assert chooser.takes(grey(100))
    noisy = np.clip(grey(100).repeat(8, 0).repeat(8, 1) + rng.normal(0, 8, (384, 512, 3)), 0, 255).astype(np.uint8)
    assert not chooser.takes(noisy)
