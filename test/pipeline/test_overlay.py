# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from clip_seg_ros.pipeline.overlay import PALETTE, draw, prompt_colors
from clip_seg_ros.pipeline.postprocess import masks, regions
from clip_seg_ros.types import ProbabilityMaps

GREY = np.full((480, 640, 3), 128, np.uint8)


def squares(*places, size=(480, 640), side=80):
    """One region for each (prompt, x, y)."""
    prompts = tuple(dict.fromkeys(prompt for prompt, _, _ in places))
    values = np.zeros((len(prompts), *size), np.float32)
    for prompt, x, y in places:
        values[prompts.index(prompt), y : y + side, x : x + side] = 0.93
    maps = ProbabilityMaps(prompts, values)
    return regions(maps, masks(maps, 0.5))


def has_color(picture, color):
    return bool((picture == color).all(axis=2).any())


def test_an_object_keeps_its_own_colour_between_light_strokes():
    picture = draw(GREY, squares(("red cup", 200, 200)))
    assert picture.shape == GREY.shape
    assert picture.dtype == np.uint8
    inside = picture[206:232, 206:274]  # above the centroid, within the outline
    own = (inside == 128).all(axis=2)
    assert 0.8 < own.mean() < 0.97
    np.testing.assert_allclose(np.unique(inside[~own], axis=0), [0.4 * 128 + 0.6 * np.array(PALETTE[0])], atol=1)
    assert (picture[300:, :] == 128).all()
    assert (picture[:, :190] == 128).all()
    assert (GREY == 128).all()


def test_a_small_object_has_its_outline_alone():
    picture = draw(GREY, squares(("red cup", 200, 200), side=20))
    stroke = 0.4 * 128 + 0.6 * np.array(PALETTE[0])
    assert not (np.abs(picture - stroke) <= 1).all(axis=2).any()


def test_the_strokes_stay_where_they_are_when_an_object_grows():
    small, large = (draw(GREY, squares(("cup", x, 200), side=side)) for x, side in ((200, 80), (193, 87)))
    np.testing.assert_array_equal(small[208:232, 208:272], large[208:232, 208:272])


def test_contour_and_label_have_the_colour_of_the_prompt():
    picture = draw(GREY, squares(("red cup", 200, 200)))
    assert has_color(picture[195:205, 220:260], PALETTE[0])  # the upper edge
    assert has_color(picture[160:196, 200:300], PALETTE[0])  # the tag above it


def test_without_regions_the_picture_is_the_image():
    assert np.array_equal(draw(GREY, []), GREY)


def test_the_caption_lies_at_the_bottom():
    picture = draw(GREY, [], caption="red cup: not found")
    changed = (picture != GREY).any(axis=2)
    assert changed[460:].all()
    assert not changed[:440].any()
    assert picture[455:].max() > 230  # light letters
    assert not np.array_equal(picture, draw(GREY, [], caption="red cup: found"))


@pytest.mark.parametrize(
    "places",
    [
        [("a", 0, 0), ("long b", 560, 0), ("c", 0, 380), ("long d", 560, 380), ("e", 300, 0), ("f", 300, 380)],
        [("a", 200, 200), ("b", 200, 200), ("c", 200, 200), ("d", 200, 200)],
        [("a", 200, 200), ("b", 230, 206), ("c", 260, 194)],
    ],
    ids=["at the borders", "on one spot", "side by side"],
)
def test_labels_keep_off_each_other_the_borders_and_the_caption(places):
    """Each tag is filled with a colour of its own, so that a tag which is covered shows less of it."""
    found = squares(*places)
    prompts = [region.prompt for region in found]
    nothing = [replace(region, inside=np.zeros_like(region.inside)) for region in found]
    picture = draw(GREY, nothing, prompts, "several things")
    for region in nothing:
        color = prompt_colors(prompts)[region.prompt]
        alone = draw(GREY, [region], prompts)
        assert (picture == color).all(axis=2).sum() == (alone == color).all(axis=2).sum() > 300


@pytest.mark.parametrize(("x", "y"), [(620, 200), (620, 0), (0, 460), (620, 460)])
def test_a_label_at_the_border_is_whole(x, y):
    def tag_px(x, y):
        (found,) = squares(("red cup", x, y), side=20)
        picture = draw(GREY, [replace(found, inside=np.zeros_like(found.inside))])
        return (picture == PALETTE[0]).all(axis=2).sum()

    assert tag_px(x, y) == tag_px(300, 200) > 300


def test_a_label_without_room_above_and_below_lies_inside():
    found = squares(("tall", 100, 0), side=446)
    picture = draw(GREY, found, caption="tall: found")
    assert has_color(picture[4:20, 110:150], PALETTE[0])
    assert np.array_equal(picture[460:], draw(GREY, [], caption="tall: found")[460:])


def test_the_order_of_the_prompts_fixes_the_colours():
    found = squares(("bowl", 100, 100))
    assert has_color(draw(GREY, found, prompts=["cup", "bowl"]), PALETTE[1])
    assert not has_color(draw(GREY, found, prompts=["cup", "bowl"]), PALETTE[0])
    assert prompt_colors(["cup", "bowl", "cup"]) == {"cup": PALETTE[0], "bowl": PALETTE[1]}
    many = prompt_colors([f"p{i}" for i in range(len(PALETTE) + 1)])
    assert many[f"p{len(PALETTE)}"] == PALETTE[0]


def test_the_best_region_lies_on_top():
    values = np.zeros((2, 480, 640), np.float32)
    values[0, 100:300, 100:300] = 0.6
    values[1, 150:250, 150:250] = 0.9
    maps = ProbabilityMaps(("low", "high"), values)
    found = regions(maps, masks(maps, 0.5))
    assert found[0].prompt == "high"
    picture = draw(GREY, found, prompts=maps.prompts)
    assert (picture[150, 170:230] == PALETTE[1]).all(), "its outline is whole"
    inside = picture[156:196, 156:244].reshape(-1, 3)
    below = 0.4 * 128 + 0.6 * np.array(PALETTE[0])
    stroke = 0.4 * below + 0.6 * np.array(PALETTE[1])
    assert (np.abs(inside - stroke) <= 1).all(axis=1).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (12, 12), (30, 200), (120, 160), (1080, 1920)])
def test_any_size_of_image_is_drawn(size):
    rgb = np.full((*size, 3), 90, np.uint8)
    maps = ProbabilityMaps(("a very long phrase about a red cup on the table",), np.full((1, *size), 0.9, np.float32))
    picture = draw(rgb, regions(maps, masks(maps, 0.5)), caption="a caption that is far too long for it " * 9)
    assert picture.shape == rgb.shape
    assert not np.array_equal(picture, rgb)


def test_a_read_only_image_is_drawn():
    rgb = np.frombuffer(GREY.tobytes(), np.uint8).reshape(GREY.shape)
    assert not np.array_equal(draw(rgb, squares(("cup", 10, 10))), rgb)


@pytest.mark.parametrize("size", [(480, 640), (240, 320), (1080, 1920), (64, 64), (3, 5)])
def test_the_corner_is_a_small_strip_at_the_lower_left(size):
    grey = np.full((*size, 3), 128, np.uint8)
    picture = draw(grey, (), corner="simulated-table weights: not for real pictures")
    rows, columns = np.nonzero((picture != 128).any(axis=2))
    if min(size) < 100:  # there is no room
        assert picture.shape == grey.shape
        return
    assert rows.min() > 0.8 * size[0]
    assert columns.min() == 0
    assert rows.max() == size[0] - 1
    assert len(rows) < 0.04 * grey.shape[0] * grey.shape[1]
    assert picture[rows.min() :, : columns.max()].max() > 200, "it is readable: light letters on a dark strip"
    assert (draw(grey, (), corner="") == grey).all()


def test_tags_and_the_caption_leave_the_corner_readable():
    low = squares(("red cup", 10, 399))
    corner = "simulated-table weights: not for real pictures"
    alone = draw(GREY, (), caption="one line", corner=corner)
    strip = np.nonzero((alone[:, 5] != 128).any(axis=1))[0]
    picture = draw(GREY, low, caption="one line", corner=corner)
    assert not has_color(picture[strip.min() :, :], PALETTE[0])
