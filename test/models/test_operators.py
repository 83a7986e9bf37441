# SPDX-License-Identifier: Apache-2.0
"""The plain operators against plain loops, and torchvision with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from torchvision.ops import boxes as box_ops

from clip_seg_ros.models import operators
from nearness import assert_near


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def boxes_within(generator: torch.Generator, count: int, width: float, height: float) -> torch.Tensor:
    """Returns ``count`` boxes that are at least 2 pixels long."""
    low = torch.rand(count, 2, generator=generator) * torch.tensor([width - 2, height - 2])
    high = low + 2 + torch.rand(count, 2, generator=generator) * (torch.tensor([width - 2, height - 2]) - low)
    return torch.cat([low, high], dim=1)


def kept_by_loops(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    def iou(a: np.ndarray, b: np.ndarray) -> float:
        sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
        shared = max(sides[0], 0) * max(sides[1], 0)
        return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)

    kept: list[int] = []
    for index in np.argsort(-scores):
        if all(iou(boxes[index], boxes[other]) <= threshold for other in kept):
            kept.append(int(index))
    return kept


def interpolated(values: np.ndarray, y: float, x: float) -> np.ndarray:
    """Returns (C,), the bilinear value at a point of a map (C, h, w) between the centres of its outermost pixels."""
    y, x = np.clip(y, 0, values.shape[1] - 1), np.clip(x, 0, values.shape[2] - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, values.shape[1] - 1), min(left + 1, values.shape[2] - 1)
    upper = values[:, top, left] * (1 - x + left) + values[:, top, right] * (x - left)
    lower = values[:, bottom, left] * (1 - x + left) + values[:, bottom, right] * (x - left)
    return upper * (1 - y + top) + lower * (y - top)


def aligned_by_loops(
    maps: np.ndarray, rois: np.ndarray, cells: tuple[int, int], scale: float, samples: int, aligned: bool
) -> np.ndarray:
    found = np.zeros((len(rois), maps.shape[1], *cells))
    for n, (image, *box) in enumerate(rois):
        left, top, right, bottom = np.array(box) * scale - (0.5 if aligned else 0.0)
        high, wide = bottom - top, right - left
        if not aligned:
            high, wide = max(high, 1.0), max(wide, 1.0)
        down = samples if samples > 0 else int(np.ceil(high / cells[0]))
        across = samples if samples > 0 else int(np.ceil(wide / cells[1]))
        for row, column in np.ndindex(cells):
            points = [
                interpolated(
                    maps[int(image)],
                    top + (row + (a + 0.5) / down) * high / cells[0],
                    left + (column + (b + 0.5) / across) * wide / cells[1],
                )
                for a, b in np.ndindex(down, across)
            ]
            found[n, :, row, column] = np.mean(points, axis=0)
    return found


def test_nms_keeps_the_boxes_of_plain_loops(generator) -> None:
    boxes, scores = boxes_within(generator, 80, 60, 40), torch.rand(80, generator=generator)
    for threshold in (0.1, 0.5, 0.9):
        assert operators.nms(boxes, scores, threshold).tolist() == kept_by_loops(
            boxes.numpy(), scores.numpy(), threshold
        )
    assert operators.nms(boxes[:0], scores[:0], 0.5).shape == (0,)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("samples", [2, -1])
def test_roi_align_is_the_mean_of_interpolated_points(generator, samples: int, aligned: bool) -> None:
    maps = torch.randn(2, 3, 10, 14, generator=generator)
    boxes = [boxes_within(generator, 4, 28, 20), boxes_within(generator, 3, 28, 20)]
    found = operators.roi_align(maps, boxes, (3, 4), 0.5, samples, aligned)
    rois = np.concatenate([np.insert(part.numpy(), 0, index, axis=1) for index, part in enumerate(boxes)])
    assert_near(found, torch.from_numpy(aligned_by_loops(maps.numpy(), rois, (3, 4), 0.5, samples, aligned)).float())
    assert operators.roi_align(maps, torch.zeros(0, 5), 7).shape == (0, 3, 7, 7)


def test_gradients_reach_the_maps(generator) -> None:
    maps = torch.randn(1, 1, 6, 6, generator=generator, requires_grad=True)
    operators.roi_align(maps, [torch.tensor([[1.0, 1.0, 4.0, 4.0]])], 2, sampling_ratio=2).sum().backward()
    assert maps.grad[0, 0, 1:5, 1:5].sum() == pytest.approx(4.0, rel=1e-5), "each cell hands on its gradient"
    assert maps.grad[0, 0, 0].abs().sum() == 0


def test_a_torchvision_without_compiled_operators_gets_these(monkeypatch) -> None:
    operators.complete_torchvision.cache_clear()
    monkeypatch.setattr("torchvision.extension._has_ops", lambda: False)
    for module in ("torchvision.ops", "torchvision.models.detection.roi_heads", "torchvision.ops.poolers"):
        monkeypatch.setattr(f"{module}.roi_align", None)
    monkeypatch.setattr(box_ops, "nms", None)
    try:
        assert operators.complete_torchvision()
        boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [0, 0, 4, 4]])
        kept = box_ops.batched_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 1]), 0.5)
        assert kept.tolist() == [0, 2]
        assert torchvision.ops.poolers.roi_align is operators.roi_align
        assert torchvision.ops.roi_align is operators.roi_align
    finally:
        operators.complete_torchvision.cache_clear()


def test_a_whole_torchvision_is_left_alone(monkeypatch) -> None:
    operators.complete_torchvision.cache_clear()
    monkeypatch.setattr("torchvision.extension._has_ops", lambda: True)
    monkeypatch.setattr(box_ops, "nms", "compiled")
    try:
        assert not operators.complete_torchvision()
        assert box_ops.nms == "compiled"
    finally:
        operators.complete_torchvision.cache_clear()
