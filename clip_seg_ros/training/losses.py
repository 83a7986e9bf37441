"""The losses of the papers, as functions of logits and truth."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def text_to_pixel_loss(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """CRIS's text-to-pixel contrastive loss (section 3.3, equations 9 and 10).

    A pixel's correlation with its sentence is pulled up inside the object and pushed down outside: the mean binary
    cross-entropy at the resolution of the logits.

    Args:
        logits: (B, h, w), one sentence an image.
        mask: (B, H, W) of 0..1, at any resolution; shrunk to (h, w) by its nearest pixels.

    Returns:
        A scalar.
    """
    return F.binary_cross_entropy_with_logits(logits, shrink_mask(mask, tuple(logits.shape[-2:])))


def shrink_mask(mask: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Brings masks (B, H, W) to ``size`` (h, w) by their nearest pixels."""
    return mask if mask.shape[-2:] == size else F.interpolate(mask[:, None], size=size, mode="nearest")[:, 0]
