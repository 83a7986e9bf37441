# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch

from clip_seg_ros.training.recipes.box_targets import box_score_loss, box_score_targets


def drawn(boxes, class_ids, image_size, map_size, class_count) -> torch.Tensor:
    """The obvious loop over the cells."""
    target = torch.zeros(class_count, *map_size)
    for (left, top, right, bottom), label in zip(boxes.tolist(), class_ids.tolist(), strict=True):
        for y in range(map_size[0]):
            for x in range(map_size[1]):
                down, across = map_size[0] / image_size[0], map_size[1] / image_size[1]
                last_x, last_y = min(int(right * across), map_size[1] - 1), min(int(bottom * down), map_size[0] - 1)
                if int(left * across) <= x < last_x and int(top * down) <= y < last_y:
                    target[label, y, x] = 1
    return target


def some_boxes(seed: int, count: int = 6, size: tuple[int, int] = (64, 96)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 4, generator=generator) * torch.tensor([size[1], size[0]] * 2)
    boxes = torch.cat([torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])], 1)
    return boxes, torch.randint(4, (count,), generator=generator)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("map_size", [(16, 24), (8, 9), (64, 96)])
def test_targets_equal_a_search_cell_by_cell(seed: int, map_size: tuple[int, int]) -> None:
    boxes, class_ids = some_boxes(seed)
    found = box_score_targets(boxes, class_ids, (64, 96), map_size, 4)
    assert torch.equal(found, drawn(boxes, class_ids, (64, 96), map_size, 4))
    assert found.any()


def test_a_box_of_whole_cells_is_exact_and_one_beyond_the_image_is_cut() -> None:
    boxes = torch.tensor([[8.0, 4.0, 16.0, 12.0], [-20.0, -8.0, 4.0, 4.0], [28.0, 12.0, 90.0, 99.0]])
    target = box_score_targets(boxes, torch.tensor([1, 0, 0]), (16, 32), (4, 8), 2)
    expected = torch.zeros(2, 4, 8)
    expected[1, 1:3, 2:4] = 1
    expected[0, 0, 0] = 1
    # Of a box from the last cell to the edge nothing is drawn, as by the authors' program.
    assert torch.equal(target, expected)


def test_the_last_row_and_column_are_left_out() -> None:
    target = box_score_targets(torch.tensor([[0.0, 0.0, 32.0, 16.0]]), torch.tensor([0]), (16, 32), (4, 8), 1)
    assert target[0, :3, :7].all()
    assert not target[0, 3].any()
    assert not target[0, :, 7].any()


def test_no_box_is_no_target() -> None:
    target = box_score_targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), (8, 8), (2, 2), 3)
    assert target.shape == (3, 2, 2)
    assert not target.any()
    assert float(box_score_loss(torch.randn(1, 3, 2, 2), target[None])) == 0


@pytest.mark.parametrize(
    ("boxes", "class_ids", "said"),
    [
        (torch.zeros(2, 4), torch.tensor([0]), r"must be \(1, 4\)"),
        (torch.zeros(1, 4), torch.tensor([3]), "classes must lie in 0..2"),
        (torch.zeros(1, 4), torch.tensor([-1]), "classes must lie in 0..2"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(boxes: torch.Tensor, class_ids: torch.Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        box_score_targets(boxes, class_ids, (8, 8), (2, 2), 3)


def test_the_loss_equals_the_obvious_loop() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(2, 4, 8, 12, generator=generator) * 2 - 1
    targets = torch.stack([box_score_targets(*some_boxes(seed, 2), (64, 96), (8, 12), 4) for seed in (0, 1)])
    losses = []
    for b in range(2):
        for y in range(8):
            for x in range(12):
                if targets[b, :, y, x].any():
                    for k in range(4):
                        probability = 1 / (1 + math.exp(-float(scores[b, k, y, x]) / 0.07))
                        wanted = float(targets[b, k, y, x])
                        losses.append(-math.log(probability if wanted else 1 - probability))
    assert 0 < len(losses) < targets.numel()
    assert float(box_score_loss(scores, targets)) == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_a_coarse_map_learns_to_find_the_boxes() -> None:
    targets = torch.stack([box_score_targets(*some_boxes(seed, 3), (64, 96), (16, 24), 4) for seed in (0, 1)])
    scores = torch.zeros(2, 4, 4, 6, requires_grad=True)
    optimizer = torch.optim.SGD([scores], lr=0.1)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = box_score_loss(scores, targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(2))
    assert losses[-1] < 0.6 * losses[0]
