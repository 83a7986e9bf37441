# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from clip_seg_ros.data.samples import IGNORED
from clip_seg_ros.training.distillation.views import crop_side, random_view


@pytest.mark.parametrize(("height", "width"), [(64, 200), (90, 60), (40, 40), (1, 7)])
def test_views_show_picture_and_labels_alike(height, width):
    truth = np.random.default_rng(0).integers(0, 3, (-(-height // 20), -(-width // 20)), np.uint8)
    labels = np.kron(truth, np.ones((20, 20), np.uint8))[:height, :width]
    rgb = np.repeat(labels[..., None] * 100, 3, axis=2)
    side = crop_side(96)
    assert side == 64
    for seed in range(20):
        view, view_labels = random_view(rgb, labels, np.random.default_rng(seed), 96, side)
        assert view.shape == (64, 64, 3)
        assert view_labels.shape == (64, 64)
        assert (np.abs(view[..., 0] / 100 - view_labels) < 0.5).mean() > 0.85


def test_most_views_hold_the_rare_class():
    labels = np.zeros((100, 400), np.uint8)
    labels[10:14, 350:354] = 1
    rgb = np.zeros((100, 400, 3), np.uint8)
    rng = np.random.default_rng(0)
    held = [1 in random_view(rgb, labels, rng, 96, 64)[1] for _ in range(200)]
    assert 0.35 < np.mean(held) < 0.7  # 3 in 8 aim at it, and some others see it
    ignored = np.full_like(labels, IGNORED)
    assert random_view(rgb, ignored, rng, 96, 64)[1].min() == IGNORED


def test_scales_are_relative_to_the_short_side_and_narrow_images_grow():
    rgb = np.zeros((100, 200, 3), np.uint8)
    rgb[:, ::10] = 255  # a line every 10 pixels
    labels = np.full((100, 200), IGNORED, np.uint8)
    for scale, lines in ((1.0, 8), (2.0, 4)):
        view, _ = random_view(rgb, labels, np.random.default_rng(1), 80, 64, (scale, scale))
        bright = view[32, :, 0] > 30
        assert np.count_nonzero(bright[1:] & ~bright[:-1]) in (lines - 1, lines)
    view, _ = random_view(rgb, labels, np.random.default_rng(1), 40, 64, (1.0, 1.0))
    assert view.shape == (64, 64, 3)
