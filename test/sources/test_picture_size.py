# SPDX-License-Identifier: Apache-2.0
import cv2
import numpy as np
import pytest

from clip_seg_ros.sources.picture_size import picture_size


@pytest.mark.parametrize("options", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 4]])
def test_the_size_of_a_jpeg(options):
    assert picture_size(cv2.imencode(".jpg", np.zeros((37, 91, 3), np.uint8), options)[1].tobytes()) == (37, 91)


@pytest.mark.parametrize("shape", [(37, 91), (37, 91, 3), (37, 91, 4)])
def test_the_size_of_a_png(shape):
    assert picture_size(cv2.imencode(".png", np.zeros(shape, np.uint16))[1].tobytes()) == (37, 91)


@pytest.mark.parametrize("kind", [".jpg", ".png"])
def test_a_cut_or_broken_head_tells_nothing_and_harms_nothing(kind):
    data = cv2.imencode(kind, np.zeros((37, 91), np.uint8))[1].tobytes()
    assert all(picture_size(data[:length]) in (None, (37, 91)) for length in range(len(data)))
    assert picture_size(data[:3] + b"\xff" * 1000) is None
    assert picture_size(b"") is None
