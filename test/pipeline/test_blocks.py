# SPDX-License-Identifier: Apache-2.0
"""The pixels of blocks, beside those of whole images that are resized."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clip_seg_ros.models.spec import SlidingWindow
from clip_seg_ros.pipeline.blocks import Blocks, agreed
from clip_seg_ros.pipeline.mixing import Mixing, mixing
from clip_seg_ros.pipeline.sliding import merge_windows, window_boxes
from nearness import assert_near

CPU = torch.device("cpu")
CASES = {
    "larger": ((12, 16), None, (48, 64), (90, 130)),
    "smaller": ((12, 16), None, (48, 64), (10, 17)),
    "as it is": ((12, 16), None, (12, 16), (12, 16)),
    "windows": ((8, 8), SlidingWindow(32, 22), (40, 64), (75, 120)),
}
"""The places, the windows, the size of the prepared image, and that of the camera's."""


def case(name: str) -> tuple[Mixing, torch.Tensor, torch.Tensor]:
    """Returns the mixing, values (W, 3, h, w) of the places, and those of the image (3, H, W), by resizing."""
    places, window, model_size, size = CASES[name]
    boxes = [(0, 0, *model_size)] if window is None else window_boxes(model_size, window)
    values = torch.randn(len(boxes), 3, *places, generator=torch.Generator().manual_seed(0))
    image = merge_windows(values, boxes, model_size)[None]
    image = F.interpolate(image, size=size, mode="bilinear", align_corners=False)[0]
    return mixing(places, boxes, model_size, size, CPU), values, image


def every_block(mixed: Mixing) -> Blocks:
    return Blocks.of(torch.ones(mixed.columns.places.shape[1], mixed.rows.places.shape[1], dtype=torch.bool), mixed)


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_the_resized_image(name: str) -> None:
    mixed, values, image = case(name)
    blocks = every_block(mixed)
    of_places = mixed.arranged(values).flatten(1)[:, blocks.places]
    found = torch.full_like(image, torch.nan).flatten(1)
    found[:, blocks.pixels.flatten()] = blocks.values(of_places).flatten(1)
    assert_near(found.view_as(image), image)


@pytest.mark.parametrize("name", CASES)
def test_some_blocks_hold_their_own_pixels(name: str) -> None:
    mixed, values, image = case(name)
    blocks = every_block(mixed)
    some = blocks.part(torch.arange(1, len(blocks.row_run), 3)).within(slice(2, 7))
    of_places = mixed.arranged(values).flatten(1)[:, some.places]
    assert some.pixels.shape[2] == 5
    assert_near(some.values(of_places), image.flatten(1)[:, some.pixels])


def test_windows_hold_each_block_once() -> None:
    blocks = every_block(case("larger")[0])
    for kinds in (1, 1 << 8, 1 << 30):
        parts = [blocks.within(window).places for window in blocks.windows(kinds)]
        assert torch.equal(torch.cat(parts, dim=1), blocks.places)
    assert len(parts) == len(blocks.row_run)


@pytest.mark.parametrize("name", CASES)
def test_places_agree_where_all_of_a_block_are_equal(name: str) -> None:
    mixed, values, _ = case(name)
    height, width = mixed.arranged(values).shape[1:]
    winners = torch.arange(height)[:, None] // 5 * 10 + torch.arange(width) // 6
    found = agreed(winners, mixed, -7)
    blocks = every_block(mixed)
    of_places = winners.flatten()[blocks.places]
    same = (of_places == of_places[0]).all(dim=0)
    assert same.any()
    assert torch.equal(found.flatten(), of_places[0].masked_fill(~same, -7))


@pytest.mark.parametrize("name", CASES)
def test_spread_gives_each_pixel_its_block(name: str) -> None:
    mixed, _, image = case(name)
    blocks = every_block(mixed)
    number = torch.arange(len(blocks.row_run))
    spread = mixed.spread(number.view(-1, mixed.rows.places.shape[1]))
    assert spread.shape == image.shape[1:]
    assert torch.equal(spread.flatten()[blocks.pixels], number.expand_as(blocks.pixels))


@pytest.mark.parametrize("name", CASES)
def test_arranged_places_return_to_their_windows(name: str) -> None:
    mixed, values, _ = case(name)
    assert torch.equal(mixed.by_window(mixed.arranged(values)[1]), values[:, 1])
