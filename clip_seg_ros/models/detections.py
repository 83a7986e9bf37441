# SPDX-License-Identifier: Apache-2.0
"""The objects that a detector finds in an image, and how a mask inside a box is laid over the image's pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

Window = tuple[slice, slice]
"""Rows and columns of an image."""


@dataclass(frozen=True)
class Detections:
    """The N objects of one image, the best first."""

    boxes: torch.Tensor
    """(N, 4) left, top, right, bottom in pixels of the model's image, 0..w and 0..h."""
    scores: torch.Tensor
    """(N,) 0..1."""
    labels: torch.Tensor
    """(N,) int64 index into the model's class names, or into the prompts if the model has none."""
    masks: torch.Tensor | None
    """(N, m, m) the probability that a cell of the box belongs to the object, 0..1; ``None`` for a model of boxes."""
    maps: torch.Tensor
    """(P, h, w) logits of each class or prompt, which the model's ``decode`` returns for this image."""
    of_image: bool = False
    """Whether the cells are those of the whole image, and not of the box."""


def in_window(mask: torch.Tensor | None, box: torch.Tensor, size: tuple[int, int]) -> tuple[Window, torch.Tensor]:
    """Lays the cells of a box over an image's pixels.

    Args:
        mask: (m, m) values of the cells; ``None``: 1 in the whole box.
        box: (4,) left, top, right, bottom in pixels; pixel 0 reaches from 0 to 1. Its sides are longer than 0.
        size: (H, W) of the image.

    Returns:
        The rows and columns that the box touches, at least one of each, and the values there, (rows, columns). They
        fall to 0 outside the box.
    """
    rows, row_places = _along(box[1], box[3], size[0])
    columns, column_places = _along(box[0], box[2], size[1])
    if mask is None:
        # A pixel belongs to the box if its centre does.
        inside = (row_places.abs() <= 1)[:, None] & (column_places.abs() <= 1)
        return (rows, columns), inside.float()
    places = torch.broadcast_tensors(column_places[None, :], row_places[:, None])
    grid = torch.stack(places, dim=2)[None].to(mask.dtype)
    return (rows, columns), F.grid_sample(mask[None, None], grid, mode="bilinear", align_corners=False)[0, 0]


def _along(start: torch.Tensor, end: torch.Tensor, size: int) -> tuple[slice, torch.Tensor]:
    """Returns the pixels of an axis that a side touches, and the places of their centres: -1 at its start, 1 at its
    end."""
    first = min(max(int(start.floor()), 0), size - 1)
    last = max(min(int(end.ceil()), size), first + 1)
    centres = torch.arange(first, last, device=start.device, dtype=start.dtype) + 0.5
    return slice(first, last), (centres - start) / (end - start) * 2 - 1
