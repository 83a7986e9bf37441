# SPDX-License-Identifier: Apache-2.0
"""Two operators of torchvision in plain PyTorch, for a torchvision whose compiled ones are missing.

That happens where torchvision was not built for the torch beside it, as with a vendor's torch on a robot, or the torch
for processors from one package index and the torchvision from another.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F


@cache
def complete_torchvision() -> bool:
    """Puts the operators below into torchvision if its compiled ones are missing; returns whether they were.

    torchvision can do without its compiled RoIAlign only through torch's compiler, and not at all without its NMS.
    """
    # torchvision is imported here, because clip.backbone must have made it importable, and few models need it.
    from torchvision import ops
    from torchvision.extension import _has_ops
    from torchvision.models.detection import roi_heads
    from torchvision.ops import boxes, poolers

    if _has_ops():
        return False
    boxes.nms = nms
    ops.roi_align = roi_heads.roi_align = poolers.roi_align = roi_align
    return True


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Does what ``torchvision.ops.nms`` does: drops boxes that overlap a better one.

    Args:
        boxes: (N, 4), left, top, right, bottom.
        scores: (N,).
        iou_threshold: A box is dropped if its IoU with a better one that stays is larger than this.

    Returns:
        (M,) int64, the indices of the boxes that stay, the best first.
    """
    from torchvision.ops import box_iou

    order = scores.argsort(descending=True, stable=True)
    overlaps = (box_iou(boxes[order], boxes[order]) > iou_threshold).cpu().numpy()
    dropped = np.zeros(len(overlaps), bool)
    for place, row in enumerate(overlaps):
        if not dropped[place]:
            dropped[place + 1 :] |= row[place + 1 :]
    return order[torch.from_numpy(~dropped).to(order.device)]


def roi_align(
    input: torch.Tensor,
    boxes: torch.Tensor | Sequence[torch.Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> torch.Tensor:
    """Does what ``torchvision.ops.roi_align`` does, for boxes within their images.

    Args:
        input: (B, C, h, w) maps.
        boxes: (N, 5), the index of the image and left, top, right, bottom; or (n, 4) for each image.
        output_size: The (rows, columns) of cells of a box, or one number for both.
        spatial_scale: What coordinates are multiplied by to fit the maps.
        sampling_ratio: A cell is the mean of so many points along each axis; 0 or less: one for each pixel of the map.
        aligned: Whether coordinates are those of pixels' edges; otherwise of their centres.

    Returns:
        (N, C, rows, columns).
    """
    if not isinstance(boxes, torch.Tensor):
        boxes = torch.cat([F.pad(part, (1, 0), value=float(index)) for index, part in enumerate(boxes)])
    rows, columns = (output_size, output_size) if isinstance(output_size, int) else output_size
    corners = boxes[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    sides = corners[:, 2:] - corners[:, :2]
    sides = sides if aligned else sides.clamp(min=1.0)
    if sampling_ratio > 0:
        points = torch.full_like(boxes[:, :2], sampling_ratio, dtype=torch.int64)
    else:
        points = (sides / sides.new_tensor([columns, rows])).ceil().clamp(min=1).long()
    result = input.new_zeros(len(boxes), input.shape[1], rows, columns)
    if not len(boxes):
        return result
    # Boxes of one image with equally many points are looked up together. The gradients of all images are joined once.
    images = input.unbind()
    kinds, kind_of = torch.cat([boxes[:, :1].long(), points], dim=1).unique(dim=0, return_inverse=True)
    for number, (image, across, down) in enumerate(kinds.tolist()):
        chosen = (kind_of == number).nonzero()[:, 0]
        x = _places(corners[chosen, 0], sides[chosen, 0], columns * across)
        y = _places(corners[chosen, 1], sides[chosen, 1], rows * down)
        values = _looked_up(images[image], x, y)  # (C, n, rows * down, columns * across)
        cells = values.unflatten(3, (columns, across)).unflatten(2, (rows, down)).mean(dim=(3, 5))
        result[chosen] = cells.transpose(0, 1).to(result.dtype)
    return result


def _places(start: torch.Tensor, side: torch.Tensor, count: int) -> torch.Tensor:
    """Returns (n, count) coordinates, the middles of ``count`` equal parts of each side."""
    steps = (torch.arange(count, device=start.device, dtype=start.dtype) + 0.5) / count
    return start[:, None] + steps * side[:, None]


def _looked_up(values: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Interpolates a map (C, h, w) bilinearly at the crossings of x (n, b) and y (n, a); returns (C, n, a, b)."""
    height, width = values.shape[1:]
    # grid_sample wants -1 at the first pixel's centre and 1 at the last one's.
    x = x * (2 / max(width - 1, 1)) - 1
    y = y * (2 / max(height - 1, 1)) - 1
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=3).to(values.dtype)
    found = F.grid_sample(
        values[None], grid.flatten(0, 1)[None], mode="bilinear", padding_mode="border", align_corners=True
    )
    return found[0].unflatten(1, grid.shape[:2])
