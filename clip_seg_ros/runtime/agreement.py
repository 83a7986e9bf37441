# SPDX-License-Identifier: Apache-2.0
"""How far the answers of two engines of one model agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from clip_seg_ros.models.base import TextFeatures
from clip_seg_ros.runtime.engine import Engine

LEAST_MEAN_IOU = 0.98
LEAST_IOU = 0.9
FARTHEST = 0.05
"""The largest mean difference of the probabilities of one map."""
LEAST_AREA = 1e-3
"""Masks that are smaller on both sides, as a share of the pixels, count as the same: their IoU is a matter of luck."""


@dataclass(frozen=True)
class Agreement:
    """How far the answers of an engine agree with those of another one, over some images and prompts."""

    mean_iou: float
    """The mean IoU of the masks, 0..1."""
    least_iou: float
    """The IoU of the worst mask, 0..1."""
    farthest: float
    """The mean difference of the probabilities of the worst map, 0..1."""
    logits: float
    """The largest difference of logits, as a share of the largest logit."""

    @property
    def is_good(self) -> bool:
        """Whether the answers may stand for those of the other engine."""
        return self.mean_iou >= LEAST_MEAN_IOU and self.least_iou >= LEAST_IOU and self.farthest <= FARTHEST

    def __str__(self) -> str:
        return f"mean mask IoU {self.mean_iou:.3f}, worst {self.least_iou:.3f}"


NONE = Agreement(0.0, 0.0, 1.0, float("inf"))
"""That of answers which are no numbers."""


def answers(engine: Engine, pixels: Sequence[torch.Tensor], text: TextFeatures) -> list[torch.Tensor]:
    """Returns the logits of every image on the CPU, each (B, P, h, w) float32."""
    return [engine.decode(engine.encode_image(each.to(engine.device)), text).cpu() for each in pixels]


def compare(
    expected: Sequence[torch.Tensor],
    found: Sequence[torch.Tensor],
    competition: Literal["sigmoid", "softmax"],
    threshold: float,
) -> Agreement:
    """Compares the logits of two engines.

    Args:
        expected: Logits of the engine that is right, (B, P, h, w) for every image.
        found: Logits of the other engine, of the same shapes.
        competition: How the model decides; competing prompts have the pixels where they are the most probable.
        threshold: The probability above which a pixel belongs to a prompt that is decided alone, 0..1.
    """
    if not all(each.isfinite().all() for each in found):
        return NONE
    ious, farthest, error, largest = [], 0.0, 0.0, 0.0
    for right, other in zip(expected, found, strict=True):
        error = max(error, float((right - other).abs().max()))
        largest = max(largest, float(right.abs().max()))
        both = [each.softmax(dim=1) if competition == "softmax" else each.sigmoid() for each in (right, other)]
        farthest = max(farthest, float((both[0] - both[1]).abs().mean(dim=(2, 3)).max()))
        ious += _ious(*(_masks(each, competition, threshold) for each in both))
    return Agreement(sum(ious) / len(ious), min(ious), farthest, error / max(largest, 1e-30))


def _masks(probabilities: torch.Tensor, competition: str, threshold: float) -> torch.Tensor:
    if competition == "softmax":
        best = probabilities.argmax(dim=1, keepdim=True)
        return best == torch.arange(probabilities.shape[1]).view(1, -1, 1, 1)
    return probabilities > threshold


def _ious(first: torch.Tensor, second: torch.Tensor) -> list[float]:
    """Returns the IoU of every mask (B, P, h, w); empty ones agree with each other."""
    both = (first & second).sum(dim=(2, 3)).flatten().tolist()
    either = (first | second).sum(dim=(2, 3)).flatten().tolist()
    least = LEAST_AREA * first.shape[2] * first.shape[3]
    return [a / b if b > least else 1.0 for a, b in zip(both, either)]
