# SPDX-License-Identifier: Apache-2.0
"""Sums over pixels that are never made, against those of a resized image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from clip_seg_ros.pipeline.lattice import columns_of, to_rows
from nearness import assert_near

SIZES = [(1, 7), (2, 9), (5, 5), (12, 5), (12, 40), (44, 131), (9, 1)]


@pytest.mark.parametrize(("places", "width"), SIZES)
def test_the_sum_up_to_a_pixel_follows_from_the_places(places: int, width: int) -> None:
    row = np.random.default_rng(0).random((1, places)).astype(np.float32)
    pixels = cv2.resize(row, (width, 1), interpolation=cv2.INTER_LINEAR)[0]
    columns = columns_of(places, width)
    weighted = row[0] * columns.weights
    beside = np.pad(row[0], (2, 1))
    for pixel in range(width + 1):
        cell = columns.cell[pixel]
        places_up_to = [cell, cell + 1] if cell + 1 < places else [cell]
        if pixel == 0 or (cell + 0.5) * width == (pixel - 0.5) * places:  # the last pixel lies just at the place
            places_up_to.append(cell - 1)
        for place in places_up_to:
            part = columns.counts[:, place + 1 - cell, pixel] @ beside[place + 1 : place + 4]
            assert_near(weighted[: place + 1].sum() + part, pixels[:pixel].sum(), scale=float(width))
    assert_near(columns.weights.sum(), float(width))


@pytest.mark.parametrize(("places", "width"), SIZES)
def test_a_place_lies_where_the_resized_image_has_its_value(places: int, width: int) -> None:
    columns = columns_of(places, width)
    coordinate = (np.arange(width) + 0.5) * places / width - 0.5
    assert_near(columns.pixel(coordinate), np.arange(width, dtype=float), scale=float(width))
    inner = (coordinate > 0) & (coordinate < places - 1)
    assert ((columns.left <= coordinate) & (coordinate < columns.left + 1))[inner].all()


@pytest.mark.parametrize("apart", [False, True])
def test_rows_are_interpolated_into_place(apart: bool) -> None:
    values = np.array([[0.0, 1.0], [1.0, 3.0]], np.float32)
    for height, expected in ((4, [[0.0, 1.0], [0.25, 1.5], [0.75, 2.5], [1.0, 3.0]]), (2, values)):
        whole = np.full((height, 3), 7.0, np.float32)
        out = whole[:, 1:] if apart else np.empty((height, 2), np.float32)
        to_rows(values, out)
        assert_near(out, np.array(expected))
        assert (whole[:, 0] == 7.0).all()
