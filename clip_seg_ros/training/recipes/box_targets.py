# SPDX-License-Identifier: Apache-2.0
"""DenseCLIP with detectors: the score map is trained from boxes (section 3.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def box_score_targets(
    boxes: torch.Tensor,
    class_ids: torch.Tensor,
    image_size: tuple[int, int],
    map_size: tuple[int, int],
    class_count: int,
) -> torch.Tensor:
    """Draws the boxes of one image into a map that is 1 inside the boxes of a class and 0 elsewhere.

    As the authors do, both corners are rounded down to cells of the map, at most to its last one, and the far one does
    not count. So a box smaller than a cell may leave no trace, and the last row and column are never drawn.

    Args:
        boxes: (N, 4), left, top, right, bottom in pixels; parts outside the image are cut off.
        class_ids: (N,) int64 in 0..class_count - 1.
        image_size: (H, W) of the image.
        map_size: (h, w) of the result; a quarter of the image for the authors.
        class_count: The number of classes K.

    Returns:
        (K, h, w) float32 on the device of ``boxes``.

    Raises:
        ValueError: The shapes do not fit together, or there is no such class.
    """
    if boxes.shape != (len(class_ids), 4):
        raise ValueError(f"boxes must be ({len(class_ids)}, 4), one for each class, not {tuple(boxes.shape)}")
    if len(class_ids) and not 0 <= int(class_ids.min()) <= int(class_ids.max()) < class_count:
        raise ValueError(f"classes must lie in 0..{class_count - 1}, got {sorted(set(class_ids.tolist()))}")
    (height, width), (rows, columns) = image_size, map_size
    scale = boxes.new_tensor([columns / width, rows / height, columns / width, rows / height], dtype=torch.float64)
    cells = (boxes.double() * scale).long()
    last = cells.new_tensor([columns - 1, rows - 1] * 2)
    cells = torch.minimum(cells.clamp(min=0), last)
    target = torch.zeros(class_count, rows, columns, device=boxes.device)
    for (left, top, right, bottom), label in zip(cells.tolist(), class_ids.tolist(), strict=True):
        target[label, top:bottom, left:right] = 1
    return target


def box_score_loss(scores: torch.Tensor, targets: torch.Tensor, tau: float = 0.07) -> torch.Tensor:
    """Returns the binary cross-entropy of the score map over the cells in a box of any class.

    Cells outside all boxes do not count, because they may show anything. In all other cells, the classes of the boxes
    are 1 and all others 0.

    Args:
        scores: (B, K, h, w) cosines; they are resized bilinearly to the targets.
        targets: (B, K, H, W) from ``box_score_targets``.
        tau: The temperature by which cosines are divided.

    Returns:
        A scalar, the mean; 0 if there is no box.
    """
    logits = scores / tau
    if logits.shape[2:] != targets.shape[2:]:
        logits = F.interpolate(logits, size=targets.shape[2:], mode="bilinear", align_corners=False)
    inside = targets.amax(dim=1, keepdim=True).expand_as(targets)
    total = F.binary_cross_entropy_with_logits(logits, targets, weight=inside, reduction="sum")
    return total / inside.sum().clamp(min=1)
