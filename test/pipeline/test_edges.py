# SPDX-License-Identifier: Apache-2.0
"""Masks that are fitted to the edges of images whose edges are known."""

from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.edges import refined
from clip_seg_ros.pipeline.preprocess import Geometry
from clip_seg_ros.types import ObjectRegion

HEIGHT, WIDTH = 120, 160
SIZE = (HEIGHT, WIDTH)
Y, X = np.mgrid[:HEIGHT, :WIDTH]
THING = ((X - 70) / 24) ** 2 + ((Y - 60) / 20) ** 2 <= 1
BLOB = np.exp(-((X - 72) ** 2 + (Y - 58) ** 2) / (2 * 19.0**2)).astype(np.float32)
"""What a coarse model says of the thing: 0.5 at a radius of 22 pixels around a place beside its middle."""


def picture(inside: np.ndarray, noise: float = 2.0) -> np.ndarray:
    """A red thing on grey, with noise of so many grey levels."""
    rgb = np.where(inside[..., None], (180, 60, 50), (110, 115, 120))
    return (rgb + np.random.default_rng(0).normal(0, noise, rgb.shape)).clip(0, 255).astype(np.uint8)


def maps_of(*values: np.ndarray, size: tuple[int, int] = SIZE) -> CellMaps:
    return CellMaps(tuple("ab"[: len(values)]), np.stack(values).astype(np.float32), Geometry(size, values[0].shape))


def region_of(mask: np.ndarray, prompt: str = "a", id: int = 7) -> ObjectRegion:
    return ObjectRegion.of_mask(prompt, id, 0.8, mask)


def test_a_blurred_mask_becomes_the_thing() -> None:
    before = region_of(BLOB > 0.5)
    (after,) = refined([before], maps_of(BLOB), picture(THING), 0.5)
    assert mask_iou(before.mask, THING) < 0.87
    assert mask_iou(after.mask, THING) > 0.9
    assert (after.prompt, after.id, after.score) == (before.prompt, before.id, before.score)
    derived = ObjectRegion.of_mask("a", 7, 0.8, after.mask)
    assert (after.box_px, after.area_px) == (derived.box_px, derived.area_px)
    assert after.centroid_px == pytest.approx(derived.centroid_px)


@pytest.mark.parametrize("size", [(240, 320), (97, 131), (30, 40)])
def test_an_image_of_any_size_is_served(size: tuple[int, int]) -> None:
    rows, columns = (np.arange(side) * whole // side for side, whole in zip(size, SIZE, strict=True))
    thing = THING[rows][:, columns]
    values = BLOB[rows][:, columns]
    (after,) = refined([region_of(values > 0.5)], maps_of(BLOB, size=size), picture(thing), 0.5)
    assert mask_iou(after.mask, thing) > mask_iou(values > 0.5, thing)


def test_cells_of_a_letterbox_lie_where_the_image_lies() -> None:
    # The image takes rows 16 to 112 of a square of 128, and the thing lies where the cells say so.
    geometry = Geometry(SIZE, (128, 128), letterbox=True)
    cells = np.zeros((1, 128, 128), np.float32)
    rows, columns = np.mgrid[:128, :128]
    cells[0] = np.exp(-((columns - 57) ** 2 + (rows - 62) ** 2) / (2 * 15.0**2))
    maps = CellMaps(("a",), cells, geometry)
    mask = maps.restored().values[0] > 0.5
    (after,) = refined([region_of(mask)], maps, picture(THING), 0.5)
    assert mask_iou(after.mask, THING) > max(0.9, mask_iou(mask, THING) + 0.03)


def test_where_the_model_is_sure_an_edge_moves_nothing() -> None:
    disc = (X - 72) ** 2 + (Y - 58) ** 2 < 22**2
    sure = np.where(disc, 0.98, 0.02)
    (after,) = refined([region_of(disc)], maps_of(sure), picture(THING), 0.5)
    assert mask_iou(after.mask, disc) > 0.95


def test_an_image_without_edges_leaves_masks_about_as_they_are() -> None:
    before = region_of(BLOB > 0.5)
    (after,) = refined([before], maps_of(BLOB), picture(np.zeros(SIZE, bool), noise=8.0), 0.5)
    assert mask_iou(after.mask, before.mask) > 0.9
    black = np.zeros((*SIZE, 3), np.uint8)
    (after,) = refined([before], maps_of(BLOB), black, 0.5)
    assert mask_iou(after.mask, before.mask) > 0.9


def test_what_was_cut_away_does_not_grow_back() -> None:
    # The model says that the right half belongs to the prompt, too, but it was left out or is another object.
    wide = np.where((abs(X - 80) <= 40) & (abs(Y - 60) <= 20), 0.95, 0.05)
    left = (wide > 0.5) & (X < 80)
    (after,) = refined([region_of(left)], maps_of(wide), picture(wide > 0.5), 0.5)
    assert mask_iou(after.mask, left) > 0.93


def test_a_mask_that_would_lose_more_than_half_stays() -> None:
    # The model wavers over a wide field, of which only a corner looks different.
    field = np.where((abs(X - 80) <= 50) & (abs(Y - 60) <= 40), 0.52, 0.48)
    corner = (X < 50) & (Y < 40) & (field > 0.5)
    before = region_of(field > 0.5)
    for small in (corner, np.zeros(SIZE, bool)):
        (after,) = refined([before], maps_of(field), picture(small), 0.5)
        assert after.area_px >= 0.5 * before.area_px
        assert np.count_nonzero(after.mask & before.mask) >= 0.5 * before.area_px


def test_of_a_mask_that_falls_apart_the_largest_part_counts() -> None:
    # The model joins another thing of the same colour by a thin neck, of which it is not sure.
    small = (X - 115) ** 2 + (Y - 60) ** 2 <= 8**2
    neck = (abs(Y - 60) <= 1) & (X > 90) & (X < 110) & ~THING & ~small
    wavering = np.where(neck, 0.52, np.where(THING | small, 0.9, 0.1))
    (after,) = refined([region_of(wavering > 0.5)], maps_of(wavering), picture(THING | small), 0.5)
    assert mask_iou(after.mask, THING) > 0.95
    assert not (after.mask & small).any()
    derived = ObjectRegion.of_mask("a", 7, 0.8, after.mask)
    assert (after.box_px, after.area_px) == (derived.box_px, derived.area_px)
    assert after.centroid_px == pytest.approx(derived.centroid_px)


def test_the_threshold_is_where_the_model_wavers() -> None:
    (after,) = refined([region_of(BLOB > 0.5)], maps_of(0.4 * BLOB), picture(THING), 0.2)
    assert mask_iou(after.mask, THING) > 0.9


def test_each_region_is_asked_of_its_own_prompt() -> None:
    other = np.exp(-((X - 130) ** 2 + (Y - 30) ** 2) / 200.0).astype(np.float32)
    regions = [region_of(other > 0.5, "b", 1), region_of(BLOB > 0.5, "a", 2)]
    after = refined(regions, maps_of(BLOB, other), picture(THING | ((abs(X - 131) <= 10) & (abs(Y - 30) <= 10))), 0.5)
    assert [(region.prompt, region.id) for region in after] == [("b", 1), ("a", 2)]
    assert mask_iou(after[1].mask, THING) > 0.9
    assert refined([], maps_of(BLOB), picture(THING), 0.5) == []


@pytest.mark.parametrize("border", [279, 281, 310])
def test_touching_objects_of_one_phrase_share_no_pixel(border: int) -> None:
    # The filter's own pixels are 4 of the image wide, and those at the border belong to both objects.
    size = (4 * HEIGHT, 4 * WIDTH)
    thing, seen, values = (np.repeat(np.repeat(each, 4, 0), 4, 1) for each in (BLOB > 0.5, THING, BLOB))
    is_left = np.mgrid[: size[0], : size[1]][1] < border
    before = [region_of(thing & is_left, id=1), region_of(thing & ~is_left, id=2), region_of(thing, "b", 3)]
    one, other, of_other_phrase = refined(before, maps_of(values, values, size=size), picture(seen), 0.5)
    assert not (one.mask & other.mask).any()
    assert mask_iou(one.mask, seen & is_left) > 0.8
    assert mask_iou(other.mask, seen & ~is_left) > 0.8
    assert (one.mask & of_other_phrase.mask).any(), "each phrase is decided alone"
    for region in (one, other):
        derived = ObjectRegion.of_mask("a", region.id, 0.8, region.mask)
        assert (region.box_px, region.area_px) == (derived.box_px, derived.area_px)


def test_an_object_does_not_grow_into_one_that_stays_as_it_was() -> None:
    # The left one would lose more than half and stays, and what it would lose looks like the right one.
    y, x = np.mgrid[: 4 * HEIGHT, : 4 * WIDTH]
    field = (abs(x - 320) <= 100) & (abs(y - 240) <= 80)
    left, right = region_of(field & (x < 240), id=1), region_of(field & (x >= 240), id=2)
    values = np.where(field, 0.52, 0.48)
    one, other = refined([left, right], maps_of(values, size=field.shape), picture(field & (x > 290)), 0.5)
    assert np.array_equal(one.mask, left.mask)
    assert not (one.mask & other.mask).any()


def test_another_image_is_refused() -> None:
    with pytest.raises(ValueError, match="as its probabilities"):
        refined([region_of(BLOB > 0.5)], maps_of(BLOB), picture(THING)[:-1], 0.5)
    with pytest.raises(ValueError, match="as its probabilities"):
        refined([region_of(BLOB > 0.5)], maps_of(BLOB), picture(THING).astype(np.float32), 0.5)
