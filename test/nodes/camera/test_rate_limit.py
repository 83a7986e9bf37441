# SPDX-License-Identifier: Apache-2.0
"""How many images a second get through."""

from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.nodes.camera.rate_limit import RateLimit


def passed(limit: RateLimit, stamps_s: np.ndarray, camera: str = "") -> int:
    return sum(limit.lets_pass(camera, stamp_s) for stamp_s in stamps_s.tolist())


@pytest.mark.parametrize("camera_hz", [5.0, 10.0, 15.0, 25.0, 30.0, 90.0])
@pytest.mark.parametrize("jitter_s", [0.0, 0.004])
def test_the_rate_is_met_on_the_average(camera_hz, jitter_s):
    rng = np.random.default_rng(0)
    stamps_s = 1000.0 + np.arange(60 * camera_hz) / camera_hz
    stamps_s = np.sort(stamps_s + rng.uniform(-jitter_s, jitter_s, len(stamps_s)))
    count = passed(RateLimit(lambda: 10.0), stamps_s)
    assert count == pytest.approx(60 * min(10.0, camera_hz), rel=0.02)


def test_0_is_no_limit():
    assert passed(RateLimit(lambda: 0.0), np.zeros(50)) == 50


def test_a_pause_is_not_made_up_for():
    limit = RateLimit(lambda: 10.0)
    assert passed(limit, np.array([0.0])) == 1
    assert passed(limit, 60.0 + np.arange(30) / 30) <= 12


def test_each_camera_has_its_own_share():
    limit = RateLimit(lambda: 10.0)
    stamps_s = np.arange(30) / 30
    assert passed(limit, stamps_s, "left") == passed(limit, stamps_s, "right") == 10


def test_another_rate_counts_at_once():
    rates = [0.1]
    limit = RateLimit(lambda: rates[0])
    assert passed(limit, np.array([0.0, 0.5])) == 1
    rates[0] = 10.0
    assert passed(limit, np.array([0.6, 0.75])) == 2
