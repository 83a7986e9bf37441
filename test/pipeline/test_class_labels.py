# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from clip_seg_ros.pipeline.class_labels import (
    UNLABELLED,
    class_colors,
    class_regions,
    classified,
    draw_classes,
    label_classes,
    paint,
)
from clip_seg_ros.pipeline.overlay import PALETTE
from clip_seg_ros.types import ProbabilityMaps


def maps(*values) -> ProbabilityMaps:
    """A row of pixels: one list of probabilities a class."""
    names = tuple("abcdefgh"[: len(values)])
    return ProbabilityMaps(names, np.array(values, np.float32)[:, None])


def test_a_pixel_has_its_most_probable_class_or_none():
    asked = maps([0.6, 0.1, 0.3, np.nan], [0.2, 0.5, 0.3, 0.1])
    assert label_classes(asked, 0.0).tolist() == [[0, 1, 0, UNLABELLED]]
    assert label_classes(asked, 0.5).tolist() == [[0, 1, UNLABELLED, UNLABELLED]]
    # What is missing to 1 is the background's: 0.2, 0.4, 0.4.
    assert label_classes(asked, 0.0, rest_competes=True).tolist() == [[0, 1, UNLABELLED, UNLABELLED]]


@pytest.mark.parametrize("count", [0, 256])
def test_a_label_image_has_room_for_so_many_classes(count):
    with pytest.raises(ValueError, match=f"1 to 255 classes apart, got {count}"):
        label_classes(ProbabilityMaps(("x",) * count, np.zeros((count, 2, 2), np.float32)), 0.0)


def test_objects_are_the_connected_parts_of_a_class():
    values = np.full((3, 4, 9), 0.1, np.float32)
    values[0] = 0.5
    values[2, 1:3, 1:3] = values[2, 1:3, 6:8] = 0.9
    values[2, 0, 4] = 0.9
    asked = ProbabilityMaps(("table", "cup", "ball"), values)
    found = class_regions(classified(asked, asked.prompts, 0.0, rest_competes=False), 4)
    assert [(region.prompt, region.area_px) for region in found] == [("ball", 4), ("ball", 4), ("table", 27)]
    assert found[0].score == pytest.approx(0.9)
    assert found[0].box_px in ((1, 1, 3, 3), (6, 1, 8, 3))
    nothing = classified(asked, asked.prompts, 1.0, rest_competes=False)
    assert class_regions(nothing, 1) == []


@pytest.mark.parametrize("count", [1, 7, 21, 150, 255])
def test_colors_differ_and_begin_with_the_palette(count):
    colors = class_colors(count)
    assert colors.shape == (256, 3)
    assert colors.dtype == np.uint8
    assert [tuple(color) for color in colors[: min(count, 7)].tolist()] == list(PALETTE[:count])
    assert len({tuple(color) for color in colors[:count].tolist()}) == count
    assert (colors[count:] == 0).all()
    assert (class_colors(255)[:count] == colors[:count]).all(), "a class keeps its colour in a longer list"


def test_pictures_show_the_classes():
    labels = np.array([[0, 1], [UNLABELLED, 0]], np.uint8).repeat(100, 0).repeat(150, 1)
    rgb = np.full((*labels.shape, 3), 100, np.uint8)
    colors = class_colors(2)
    assert (paint(labels, colors)[150, 10] == 0).all()
    assert (paint(labels, colors)[150, 250] == PALETTE[0]).all()
    drawn = draw_classes(rgb, labels, ("cup", "table"), colors)
    assert (drawn[199, 10] == 100).all()
    assert (drawn[199, 299] == np.round((100 + np.array(PALETTE[0])) / 2)).all()
    assert (drawn[:60, :100] != draw_classes(rgb, labels, ("box", "floor"), colors)[:60, :100]).any(), (
        "names are written"
    )


def test_the_corner_of_the_picture_of_classes():
    rgb = np.full((480, 640, 3), 100, np.uint8)
    labels = np.full((480, 640), UNLABELLED, np.uint8)
    drawn = draw_classes(rgb, labels, ("a",), class_colors(1), corner="not for real pictures")
    changed = np.nonzero((drawn != rgb).any(axis=2))
    assert changed[0].min() > 450
    assert changed[1].min() == 0
    assert changed[1].max() < 320
