# SPDX-License-Identifier: Apache-2.0
"""Runs, against the pixels of masks, labels and resized maps."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from clip_seg_ros.pipeline.runs import Runs, runs_above, runs_of_labels, runs_of_masks
from nearness import assert_near


def painted(runs: Runs, count: int) -> np.ndarray:
    """(count, H, W) bool, drawn run by run."""
    masks = np.zeros((count, *runs.size), np.bool_)
    for label, row, left, right in zip(runs.label, runs.row_in_image, runs.left, runs.right):
        assert left < right
        assert not masks[label, row, left:right].any(), "no pixel is in two runs"
        masks[label, row, left:right] = True
    return masks


def blobs(seed: int, count: int, size: tuple[int, int], coarse: tuple[int, int] = (5, 7)) -> np.ndarray:
    values = np.random.default_rng(seed).random((count, *coarse)).astype(np.float32)
    return np.stack([cv2.resize(value, size[::-1], interpolation=cv2.INTER_CUBIC) for value in values])


def assert_sorted_and_apart(runs: Runs) -> None:
    place = runs.row * (runs.size[1] + 1) + runs.left
    assert (np.diff(place) > 0).all()
    same_row = np.flatnonzero(np.diff(runs.row) == 0)
    assert (runs.left[same_row + 1] > runs.right[same_row]).all(), "runs of one row do not touch"
    changes = np.flatnonzero(np.diff(runs.label))
    assert (runs.row[changes + 1] > runs.row[changes] + 1).all(), "maps do not lie side by side"


@pytest.mark.parametrize("seed", range(4))
def test_runs_of_masks_cover_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    masks = random.random((3, 13, 17)) < (0.2, 0.5, 0.9, 1.0)[seed]
    values = random.random(masks.shape).astype(np.float32)
    runs = runs_of_masks(masks, values)
    np.testing.assert_array_equal(painted(runs, 3), masks)
    assert_sorted_and_apart(runs)
    assert_near(np.bincount(runs.label, runs.total, 3), (values * masks).sum((1, 2)))


def test_runs_of_labels_cover_the_image() -> None:
    random = np.random.default_rng(1)
    labels = np.kron(random.integers(0, 3, (4, 5)), np.ones((3, 2))).astype(np.uint8)
    values = random.random(labels.shape).astype(np.float32)
    runs = runs_of_labels(labels, values)
    np.testing.assert_array_equal(painted(runs, 3), [labels == label for label in range(3)])
    assert_near(np.bincount(runs.label, runs.total), [values[labels == label].sum() for label in range(3)])


# Larger and smaller than the image, as large, and with sides of one place.
LATTICES = [(9, 11), (24, 31), (48, 64), (90, 70), (1, 31), (24, 1), (1, 1), (48, 31)]


@pytest.mark.parametrize("places", LATTICES)
@pytest.mark.parametrize("level", [0.3, 0.5])
def test_runs_above_a_level_are_the_pixels_of_the_resized_maps(places: tuple[int, int], level: float) -> None:
    size, maps, values = (48, 64), blobs(0, 3, places), blobs(1, 3, places)
    runs = runs_above(maps, level, values, size)
    assert_sorted_and_apart(runs)
    resized, sums = (
        np.stack([cv2.resize(each, size[::-1], interpolation=cv2.INTER_LINEAR) for each in part])
        for part in (maps, values)
    )
    found = painted(runs, 3)
    # A pixel whose value rounding alone separates from the level may be on either side of it.
    doubtful = np.abs(resized - level) < 1e-6
    np.testing.assert_array_equal(found[~doubtful], (resized > level)[~doubtful])
    for label, row, left, right, total in zip(runs.label, runs.row_in_image, runs.left, runs.right, runs.total):
        assert_near(total, sums[label, row, left:right].sum(), scale=float(size[1]))


def test_maps_with_many_boundaries_are_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = np.random.default_rng(4).random((5, 20, 24)).astype(np.float32)
    maps[2] = 0.0
    whole = runs_above(maps, 0.5, maps, (48, 64))
    assert len(whole.row) > 1000, "the boundaries of two maps or more are a part"
    monkeypatch.setattr("clip_seg_ros.pipeline.runs._AT_ONCE", 800)
    parts = runs_above(maps, 0.5, maps, (48, 64))
    for name in ("label", "row", "left", "right"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    assert_near(parts.total, whole.total, scale=64.0)


def test_values_that_are_the_maps_are_summed_too() -> None:
    maps = blobs(3, 2, (9, 11))
    assert_near(runs_above(maps, 0.4, maps, (30, 40)).total, runs_above(maps, 0.4, maps.copy(), (30, 40)).total)


def test_what_lies_between_two_pixels_is_no_run() -> None:
    # In an image of a third of the places, peaks and valleys of one place may hold no pixel.
    maps = np.zeros((1, 1, 30), np.float32)
    maps[0, 0, [0, 4, 5, 6, 8, 9, 10, 12, 17]] = 1.0
    runs = runs_above(maps, 0.5, maps, (1, 10))
    pixels = cv2.resize(maps[0], (10, 1), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(painted(runs, 1)[0], pixels > 0.5)
    assert_sorted_and_apart(runs)


def test_a_peak_or_a_valley_between_two_pixels_of_a_larger_image_is_no_run_or_gap() -> None:
    # A place that is hardly on its side of the level and lies under no pixel.
    peak, valley = [0.0, 0.501, 0.0, 0.0, 0.0], [1.0, 0.499, 1.0, 1.0, 0.0]
    maps = np.array([[peak, valley, peak, [1.0, 1.0, 1.0, 0.499, 1.0]]], np.float32)
    runs = runs_above(maps, 0.5, maps, (4, 7))
    pixels = cv2.resize(maps[0], (7, 4), interpolation=cv2.INTER_LINEAR)
    assert runs.row.tolist() == [1, 3]
    np.testing.assert_array_equal(painted(runs, 1)[0], pixels > 0.5)
    assert_near(runs.total, np.where(pixels > 0.5, pixels, 0.0).sum(axis=1)[[1, 3]])


@pytest.mark.parametrize(("value", "count"), [(0.5, 0), (np.nextafter(np.float32(0.5), np.float32(1)), 6)])
def test_the_level_itself_is_outside(value: float, count: int) -> None:
    maps = np.full((1, 2, 3), value, np.float32)
    assert len(runs_above(maps, 0.5, maps, (6, 9)).row) == count


def test_a_pixel_hardly_above_the_level_is_inside_beside_one_hardly_below() -> None:
    above = np.nextafter(np.float32(0.3), np.float32(1))
    maps = np.array([[[0.3, above, 0.3, 1.0, 0.3, above]]], np.float32)
    np.testing.assert_array_equal(painted(runs_above(maps, 0.3, maps, (1, 6)), 1)[0], maps[0] > np.float32(0.3))


def test_no_maps_have_no_runs() -> None:
    maps = np.zeros((0, 5, 6), np.float32)
    runs = runs_above(maps, 0.5, maps, (10, 12))
    assert len(runs.row) == len(runs.total) == len(runs_of_masks(np.zeros((0, 5, 6), bool), maps).row) == 0
