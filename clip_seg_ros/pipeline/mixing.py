# SPDX-License-Identifier: Apache-2.0
"""How the pixels of an image are mixed of a model's places, without mixing them.

A model answers at places: the cells of its logits, or those of all its windows. To bring the answer to the image, the
places are resized to the windows, these are averaged where they overlap, and the result is resized to the image. Each
of these steps is linear and treats rows and columns apart, so that all of them together make every pixel a weighted
mean of a few rows and columns of places. The weights are positive and sum to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F

from clip_seg_ros.pipeline.sliding import Box

Spans = tuple[tuple[int, int], ...]
"""(first, last + 1) of every window along one axis, in pixels of the prepared image."""


@dataclass(frozen=True)
class Axis:
    """The mixing along the rows or along the columns of an image with N of them, which are divided into R runs."""

    run: torch.Tensor
    """(N,) int64, the run that each pixel belongs to."""
    places: torch.Tensor
    """(k, R) int64, the places that the pixels of each run are mixed of; shorter lists repeat their first place."""
    pixels: torch.Tensor
    """(l, R) int64, the pixels of each run; shorter runs repeat their last pixel."""
    weights: torch.Tensor
    """(k, l, R) float32, the weights of these places in these pixels; a repeated place has none."""


@dataclass(frozen=True)
class Mixing:
    """The mixing of a whole image."""

    rows: Axis
    columns: Axis
    places: tuple[int, int]
    """(h, w) of a window's places."""
    windows: tuple[int, int]
    """The number of windows along the rows and along the columns; (1, 1) for a model that sees the whole image."""

    @property
    def across(self) -> int:
        """The number of columns of arranged places."""
        return self.places[1] * self.windows[1]

    def arranged(self, values: torch.Tensor) -> torch.Tensor:
        """Lays all windows out beside one another: (W, K, h, w) -> (K, rows of places, columns of places)."""
        return values.unflatten(0, self.windows).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Gives every pixel the value of its block: (runs of columns, runs of rows) -> (H, W)."""
        return values.index_select(0, self.columns.run).t().contiguous().index_select(0, self.rows.run)

    def by_window(self, values: torch.Tensor) -> torch.Tensor:
        """Takes the windows apart again: (rows of places, columns of places) -> (W, h, w)."""
        height, width = self.places
        return values.unflatten(1, (-1, width)).unflatten(0, (-1, height)).transpose(1, 2).flatten(0, 1)


@lru_cache(maxsize=32)  # two for each size of image; finding one takes some tens of milliseconds
def axis(places: int, spans: Spans, model_side: int, side: int, device: torch.device) -> Axis:
    """Finds the mixing along one axis.

    Neighbours belong to one run if the places of one of them hold those of all others. A run is no longer than the
    distance between two places, so that nearly all runs are equally long.

    Args:
        places: The number of places of a window.
        spans: The windows, which together cover the prepared image.
        model_side: The number of pixels of the prepared image.
        side: The number of pixels of the camera's image.
        device: Where the result is needed.
    """
    # A place's weight in every pixel is found by resizing an image in which it alone is 1.
    alone = torch.eye(places, dtype=torch.float64)[None]
    parts = torch.zeros(len(spans), places, model_side, dtype=torch.float64)
    seen = torch.zeros(model_side, dtype=torch.float64)
    for part, (first, end) in zip(parts, spans, strict=True):
        part[:, first:end] = F.interpolate(alone, size=end - first, mode="linear", align_corners=False)[0]
        seen[first:end] += 1
    shares = F.interpolate((parts.flatten(0, 1) / seen)[None], size=side, mode="linear", align_corners=False)[0]
    window_px = (spans[0][1] - spans[0][0]) * side / model_side
    longest = math.ceil(window_px / places)
    runs: list[list[int]] = []
    used: list[frozenset[int]] = []
    for pixel, weights_of_pixel in enumerate(shares.t()):
        needed = frozenset(weights_of_pixel.nonzero()[:, 0].tolist())
        if runs and len(runs[-1]) < longest and (needed <= used[-1] or used[-1] <= needed):
            runs[-1].append(pixel)
            used[-1] |= needed
        else:
            runs.append([pixel])
            used.append(needed)
    run = torch.repeat_interleave(torch.tensor([len(pixels) for pixels in runs]))
    pixels_of_runs = _filled(runs, repeat=-1)
    places_of_runs = _filled([sorted(of_run) for of_run in used], repeat=0)
    weights = shares[places_of_runs[:, None], pixels_of_runs]
    weights[1:] *= (places_of_runs[1:] != places_of_runs[0])[:, None]
    return Axis(*(part.to(device) for part in (run, places_of_runs, pixels_of_runs, weights.float())))


def _filled(lists: list[list[int]], repeat: int) -> torch.Tensor:
    """Returns (k, n), n lists of at most k numbers; shorter ones repeat one of theirs, given by its index."""
    longest = max(map(len, lists))
    return torch.tensor([numbers + [numbers[repeat]] * (longest - len(numbers)) for numbers in lists]).t().contiguous()


def mixing(
    places: tuple[int, int],
    windows: Sequence[Box] | None,
    model_size: tuple[int, int],
    size: tuple[int, int],
    device: torch.device,
) -> Mixing:
    """Finds the mixing of an image.

    Args:
        places: (h, w) of a window's logits.
        windows: The boxes from ``window_boxes``; ``None`` if the model sees the whole image.
        model_size: (H, W) of the prepared image, to which the logits of the windows are resized first.
        size: (H, W) of the camera's image.
        device: Where the result is needed.
    """
    boxes = windows or [(0, 0, *model_size)]
    down = tuple(sorted({(top, bottom) for top, _, bottom, _ in boxes}))
    across = tuple(sorted({(left, right) for _, left, _, right in boxes}))
    rows = axis(places[0], down, model_size[0], size[0], device)
    columns = axis(places[1], across, model_size[1], size[1], device)
    return Mixing(rows, columns, places, (len(down), len(across)))
