# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from clip_seg_ros.models.spec import InputSpec, SlidingWindow
from clip_seg_ros.runtime.agreement import compare
from clip_seg_ros.runtime.eager import EagerEngine
from clip_seg_ros.runtime.samples import sample_pixels, sample_prompts
from clip_seg_ros.zoo.factory import build_segmenter


def ramp(columns=100, rows=50):
    """Logits (1, 1, rows, columns) from -5 to 5."""
    return torch.linspace(-5, 5, columns).expand(1, 1, rows, columns).clone()


def test_equal_answers_agree():
    found = compare([ramp()], [ramp()], "sigmoid", 0.5)
    assert (found.mean_iou, found.least_iou, found.farthest, found.logits) == (1.0, 1.0, 0.0, 0.0)
    assert found.is_good


def test_the_iou_is_that_of_the_masks():
    found = compare([ramp()], [ramp().roll(10, dims=3)], "sigmoid", 0.5)
    assert found.mean_iou == pytest.approx(40 / 60)
    assert not found.is_good


def test_one_bad_mask_among_many_is_bad():
    right = ramp().expand(1, 30, 50, 100).clone()
    other = right.clone()
    other[:, 0, :25] = -5
    found = compare([right], [other], "sigmoid", 0.5)
    assert found.mean_iou == pytest.approx(1 - 0.5 / 30)
    assert found.least_iou == pytest.approx(0.5)
    assert not found.is_good


def test_a_map_far_off_is_bad_even_where_no_mask_changes():
    right = torch.full((1, 1, 8, 8), -6.0)
    found = compare([right], [torch.full((1, 1, 8, 8), -1.0)], "sigmoid", 0.5)
    assert found.mean_iou == 1.0
    assert found.farthest > 0.2
    assert not found.is_good


def test_a_few_pixels_do_not_count():
    right, other = torch.full((1, 1, 100, 100), -6.0), torch.full((1, 1, 100, 100), -6.0)
    other[0, 0, 0, :5] = 6.0
    assert compare([right], [other], "sigmoid", 0.5).is_good
    other[0, 0, :10] = 6.0
    assert compare([right], [other], "sigmoid", 0.5).mean_iou == 0.0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_does_not_agree(value):
    other = ramp()
    other[0, 0, 3, 3] = value
    assert not compare([ramp()], [other], "sigmoid", 0.5).is_good


def test_competing_prompts_are_compared_by_the_best_one():
    right = torch.cat([ramp(), torch.zeros_like(ramp())], dim=1)
    assert compare([right], [right + 3.0], "softmax", 0.5).is_good
    shifted = right.clone()
    shifted[:, 1] += 1.0
    assert not compare([right], [shifted], "softmax", 0.5).is_good


@pytest.mark.parametrize("resize", ["squash", "letterbox", "short_side"])
def test_samples_have_the_size_that_a_camera_gives(resize):
    spec = InputSpec(64, resize, 16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    found = sample_pixels(spec)
    assert len(found) == 3
    for pixels in found:
        assert pixels.shape == ((1, 3, 64, 80) if resize == "short_side" else (1, 3, 64, 64))
        assert pixels.std() > 0.3, "there is something to see"
        assert -2.51 < pixels.min() < 0 < pixels.max() < 2.51


def test_samples_of_a_model_that_looks_through_windows():
    window = SlidingWindow(64, 48)
    spec = InputSpec(64, "short_side", 16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), window=window)
    first, *_ = sample_pixels(spec)
    assert first.shape == (2, 3, 64, 64)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("name", ["clipseg-pocket", "denseclip-pocket", "maskclip-pocket"])
@torch.inference_mode()
def test_the_embedded_models_find_something_in_the_samples(name):
    engine = EagerEngine(build_segmenter(name), "cpu")
    text = engine.encode_text(sample_prompts(engine.spec))
    for pixels in sample_pixels(engine.spec.input):
        logits = engine.decode(engine.encode_image(pixels), text)
        shares = (
            (logits > 0).float().mean() if engine.spec.competition == "sigmoid" else logits.softmax(1).amax(1).mean()
        )
        assert 0.005 < shares < 1.0
