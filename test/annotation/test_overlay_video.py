# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from clip_seg_ros.annotation.overlay_video import OverlayVideo

RED, BLUE = (220, 30, 30), (30, 30, 220)


def plain(color: tuple[int, int, int], size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.full((*size, 3), color, np.uint8)


def write(path: Path, times_s: list[float], colors: list[tuple[int, int, int]]) -> OverlayVideo:
    video = OverlayVideo(path)
    for at_s, color in zip(times_s, colors, strict=True):
        video.add(plain(color), round(at_s * 1e9))
    return video


def read(path: Path) -> tuple[float, list[np.ndarray]]:
    """The rate, and the RGB colour in the middle of each picture."""
    video = cv2.VideoCapture(str(path))
    found = []
    while (got := video.read())[0]:
        height, width = got[1].shape[:2]
        found.append(got[1][height // 2, width // 2, ::-1].astype(int))
    return video.get(cv2.CAP_PROP_FPS), found


def test_a_video_has_the_rate_and_the_pictures_that_were_added(tmp_path):
    path = tmp_path / "a" / "v.mp4"
    video = write(path, [step / 20 for step in range(30)], [RED] * 15 + [BLUE] * 15)
    assert not path.exists()
    assert video.close() == path
    rate_hz, found = read(path)
    assert rate_hz == pytest.approx(20, abs=0.1)
    assert len(found) == 30
    assert np.abs(np.array(found) - ([RED] * 15 + [BLUE] * 15)).max() < 25
    assert [each.name for each in path.parent.iterdir()] == ["v.mp4"]


def test_a_pause_is_as_long_in_the_video(tmp_path):
    times_s = [*(step / 10 for step in range(12)), 3.1, 3.2]
    write(tmp_path / "v.mp4", times_s, [RED] * 12 + [BLUE] * 2).close()
    _, found = read(tmp_path / "v.mp4")
    assert len(found) == 33
    assert sum(each[2] > 128 for each in found) == 2


def test_a_video_of_times_that_jitter_is_as_long_as_they_are(tmp_path):
    jitter = np.random.default_rng(0).uniform(-0.02, 0.02, 40)
    write(tmp_path / "v.mp4", list(np.arange(40) / 10 + jitter), [RED] * 40).close()
    rate_hz, found = read(tmp_path / "v.mp4")
    assert len(found) / rate_hz == pytest.approx(4.0, abs=0.15)


@pytest.mark.parametrize("count", [1, 3])
def test_a_few_pictures_are_a_video_too(tmp_path, count):
    write(tmp_path / "v.mp4", [0.1 * step for step in range(count)], [RED] * count).close()
    assert len(read(tmp_path / "v.mp4")[1]) == count


def test_without_a_picture_there_is_no_file(tmp_path):
    assert OverlayVideo(tmp_path / "v.mp4").close() is None
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_other_sizes_are_fitted_into_the_first_one(tmp_path):
    video = OverlayVideo(tmp_path / "v.mp4")
    for step, size in enumerate(((47, 63), (30, 90), (96, 128))):
        video.add(plain(RED, size), step * 10**8)
    video.close()
    _, found = read(tmp_path / "v.mp4")
    assert len(found) == 3
    assert np.abs(np.array(found) - RED).max() < 40
