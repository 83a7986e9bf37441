# SPDX-License-Identifier: Apache-2.0
"""The losses of the papers, as functions of logits and ground truth."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def text_to_pixel_loss(logits: torch.Tensor, mask: torch.Tensor, ignored: torch.Tensor | None = None) -> torch.Tensor:
    """CRIS's text-to-pixel contrastive loss (section 3.3, equations 9 and 10).

    It raises a pixel's correlation with its sentence inside the object and lowers it outside, by the mean binary
    cross-entropy at the resolution of the logits.

    Args:
        logits: (B, h, w), one sentence for each image.
        mask: (B, H, W) of 0..1, at any resolution; it is resized to (h, w) by nearest pixels.
        ignored: (B, H, W) bool, pixels of the mask that do not count; ``None`` if all count.

    Returns:
        A scalar.
    """
    size = tuple(logits.shape[-2:])
    mask = shrink_mask(mask, size)
    if ignored is not None:
        counted = shrink_mask(ignored.float(), size) == 0
        logits, mask = logits[counted], mask[counted]
    return F.binary_cross_entropy_with_logits(logits, mask)


def dice_loss(logits: torch.Tensor, masks: torch.Tensor, ignored: torch.Tensor | None = None) -> torch.Tensor:
    """Returns the mean soft dice loss over all masks that are not empty, whatever their size; 0 if all are empty.

    Args:
        logits, masks: (..., h, w).
        ignored: (..., h, w) bool, pixels that do not count; ``None`` if all count.
    """
    if ignored is not None:
        # A probability of 0 where the mask is 0 adds nothing to any of the sums.
        logits, masks = logits.masked_fill(ignored, -torch.inf), masks.masked_fill(ignored, 0)
    wanted = masks.flatten(-2)
    there = wanted.sum(-1) > 0
    if not there.any():
        return logits.sum() * 0
    probabilities, wanted = logits.sigmoid().flatten(-2)[there], wanted[there]
    overlap = 2 * (probabilities * wanted).sum(-1) + 1
    return (1 - overlap / (probabilities.sum(-1) + wanted.sum(-1) + 1)).mean()


def shrink_mask(mask: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resizes masks (B, H, W) to ``size`` (h, w) by nearest pixels."""
    return mask if mask.shape[-2:] == size else F.interpolate(mask[:, None], size=size, mode="nearest")[:, 0]


def dense_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, ignore: int = 255) -> torch.Tensor:
    """DenseCLIP's loss for class scores: cross-entropy at the resolution of the labels.

    As in the framework of its authors, the mean is over all pixels, including ignored ones.

    Args:
        logits: (B, K, h, w); they are resized bilinearly to the labels.
        labels: (B, H, W) int64.
        ignore: The label of pixels that do not count.

    Returns:
        A scalar.
    """
    logits = _resized(logits, labels)
    return F.cross_entropy(logits, labels, ignore_index=ignore, reduction="sum") / labels.numel()


def identity_loss(scores: torch.Tensor, labels: torch.Tensor, tau: float = 0.07, weight: float = 0.4) -> torch.Tensor:
    """DenseCLIP's auxiliary loss on the score map (B, K, h, w) of cosines (section 3.2)."""
    return weight * dense_cross_entropy(scores / tau, labels)


def pixel_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the share of all pixels, 0..1, whose best class (B, K, h, w) is their label (B, H, W)."""
    return (_resized(logits, labels).argmax(dim=1) == labels).float().mean()


def _resized(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    if logits.shape[2:] == labels.shape[1:]:
        return logits
    return F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=False)
