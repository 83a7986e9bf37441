# SPDX-License-Identifier: Apache-2.0
"""COCO's masks against a slow reading of their definition, and against what COCO's own tools gave."""

import json
from itertools import pairwise
from math import ceil

import numpy as np
import pytest

from clip_seg_ros.data.coco_masks import decode_polygon, decode_runs, decode_segmentation, encode_runs, read_json
from clip_seg_ros.data.samples import DataError
from run_lengths import compress

# Polygons on pictures of 20 x 24, and the compressed run lengths that COCO's tools make of them.
RECORDED = (
    (
        [12.5, 3.1, 20.7, 8.0, 18.2, 15.9, 6.1, 14.3, 2.0, 7.77, 12.5, 3.1],
        "S23a02M2O1N2O000O100O11O0010O01O1N1M4Lg1",
        155,
    ),
    ([-4, 2, 30, 2, 10, 30.5], "29;2N2N2N2N1O000000000000000000000000N2O1N2O1O1N0", 375),
    ([2, 2, 20, 16, 20, 2, 2, 16], "Z1>7N2N2N1O2O1N2NY10gN2N2N101N2N2N2]2", 126),
)


def slow_outline(corners):
    """The closed outline on the fine grid, one point at a time, each edge drawn from its lower end."""
    points = []
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1]):
        steep = abs(y1 - y0) > abs(x1 - x0)
        a, b = ((y0, x0), (y1, x1)) if steep else ((x0, y0), (x1, y1))
        turned = a[0] > b[0]
        if turned:
            a, b = b, a
        edge = []
        for step in range(b[0] - a[0] + 1):
            slope = (b[1] - a[1]) / (b[0] - a[0]) if b[0] > a[0] else 0.0
            edge.append((a[0] + step, int(a[1] + slope * step + 0.5)))
        edge = [(minor, major) for major, minor in edge] if steep else edge
        points += edge[::-1] if turned else edge
    return points


def slow_polygon(polygon, height, width):
    """Even-odd down each column: the outline is met where it passes the middle of the column."""
    corners = [(int(5 * x + 0.5), int(5 * y + 0.5)) for x, y in zip(polygon[::2], polygon[1::2])]
    meetings = {column: [] for column in range(width)}
    outline = slow_outline(corners)
    for (x0, y0), (x1, y1) in pairwise(outline):
        column, fine = divmod(min(x0, x1), 5)
        if x0 != x1 and fine == 2 and column in meetings:
            meetings[column].append(min(max((min(y0, y1) + 0.5) / 5 - 0.5, 0), height))
    mask = np.zeros((height, width), bool)
    for column, rows in meetings.items():
        for row in range(height):
            mask[row, column] = sum(ceil(meeting) <= row for meeting in rows) % 2 == 1
    return mask


@pytest.mark.parametrize("seed", range(8))
def test_polygons_are_filled_as_defined(seed):
    rng = np.random.default_rng(seed)
    for decimals in (0, 1, 2, 6):
        height, width = (int(side) for side in rng.integers(1, 40, 2))
        corners = rng.uniform(-0.2, 1.2, (int(rng.integers(1, 12)), 2)) * [width, height]
        polygon = np.round(corners, decimals).ravel().tolist()
        assert (decode_polygon(polygon, height, width) == slow_polygon(polygon, height, width)).all()


@pytest.mark.parametrize(("polygon", "text", "area"), RECORDED)
def test_polygons_and_strings_are_read_as_cocos_tools_do(polygon, text, area):
    mask = decode_polygon(polygon, 20, 24)
    assert mask.sum() == area
    for recorded in (text, text.encode()):
        assert (decode_runs(recorded, 20, 24) == mask).all()


def test_a_rectangle_covers_the_pixels_whose_middle_is_inside():
    mask = decode_polygon([2, 1, 6, 1, 6, 4, 2, 4], 6, 8)
    expected = np.zeros((6, 8), bool)
    expected[1:4, 2:6] = True
    assert (mask == expected).all()
    assert mask.dtype == bool


@pytest.mark.parametrize("seed", range(6))
def test_run_lengths_go_down_the_columns(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 60, 2))
    mask = rng.random((height, width)) < [0.02, 0.5, 0.98][seed % 3]
    runs, value = [0], False
    for column in range(width):
        for row in range(height):
            if mask[row, column] != value:
                runs.append(0)
                value = not value
            runs[-1] += 1
    assert (decode_runs(runs, height, width) == mask).all()
    assert encode_runs(mask) == {"size": [height, width], "counts": runs}
    assert (decode_runs(compress(runs), height, width) == mask).all()
    segmentation = {"size": [height, width], "counts": compress(runs)}
    assert (decode_segmentation(segmentation, height, width) == mask).all()


def test_polygons_of_an_object_are_joined():
    first, second = [1, 1, 5, 1, 5, 5, 1, 5], [3, 3, 8, 3, 8, 8, 3, 8]
    joined = decode_segmentation([first, second], 10, 12)
    assert (joined == (decode_polygon(first, 10, 12) | decode_polygon(second, 10, 12))).all()
    assert not decode_segmentation([], 10, 12).any()


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [5, 4], "counts": [20]}, r"run lengths of size \[5, 4\] on a picture of 4 x 5"),
        ({"size": [4, 5], "counts": [7, 3]}, "run lengths cover 10 pixels of a picture of 4 x 5"),
        ({"size": [4, 5], "counts": [30, -10]}, "run lengths cover 20"),
        ({"size": [4, 5], "counts": "0\n"}, r"hold the character '\\n'"),
        ({"size": [4, 5], "counts": "P"}, "break off in the middle of a number"),
        ([[1, 2, 3]], "not a flat list of x, y"),
        ([[[1, 2], [3, 4]]], "not a flat list of x, y"),
    ],
)
def test_wrong_masks_are_refused(segmentation, message):
    with pytest.raises(DataError, match=message):
        decode_segmentation(segmentation, 4, 5)


def test_json_files_say_what_is_wrong_with_them(tmp_path):
    path = tmp_path / "instances.json"
    with pytest.raises(DataError, match=r"instances.json is missing: fetch it"):
        read_json(path, "fetch it")
    path.write_text(json.dumps([{"id": 1}, {"id": 2}])[:-4])
    with pytest.raises(DataError, match=r"instances.json is no whole JSON file .*: fetch it"):
        read_json(path, "fetch it")
    path.write_text(json.dumps([{"id": 1}, {"id": 2}]))
    assert read_json(path, "fetch it", lambda entry: entry["id"]) == [1, 2]
