# SPDX-License-Identifier: Apache-2.0
"""Batches of training: images with phrases and their masks, or images with a class for every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from clip_seg_ros.training import distributed


@dataclass(frozen=True)
class ExpressionBatch:
    pixels: torch.Tensor
    """(B, 3, H, W) float32 in 0..1."""
    texts: tuple[tuple[str, ...], ...]
    """P phrases for each image."""
    masks: torch.Tensor
    """(B, P, H, W) float32, 1 where the phrase's objects are."""
    ignored: torch.Tensor | None = None
    """(B, P, H, W) bool, pixels that do not count; ``None`` if all count."""

    def share(self) -> ExpressionBatch:
        """Returns this process's part of the batch."""
        parts = (self.pixels, self.texts, self.masks, self.ignored)
        return ExpressionBatch(*(None if part is None else distributed.share(part) for part in parts))


@dataclass(frozen=True)
class ClassBatch:
    pixels: torch.Tensor
    """(B, 3, H, W) float32 in 0..1."""
    labels: torch.Tensor
    """(B, H, W) int64 index into the classes, or ``IGNORED``."""

    def share(self) -> ClassBatch:
        """Returns this process's part of the batch."""
        return ClassBatch(distributed.share(self.pixels), distributed.share(self.labels))
