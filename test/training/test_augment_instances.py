# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.data.rendered_instances import mask_boxes
from clip_seg_ros.data.samples import InstanceSample
from clip_seg_ros.models.spec import InputSpec
from clip_seg_ros.training.augment_instances import InstanceViews, mirrored, resized, windowed


def sample(masks: bool = True) -> InstanceSample:
    """Two objects in an image of 60x40 whose pixels are brighter inside them."""
    drawn = np.zeros((2, 40, 60), bool)
    drawn[0, 4:24, 6:26], drawn[1, 20:36, 40:56] = True, True
    rgb = np.repeat((100 * drawn[0] + 200 * drawn[1]).astype(np.uint8)[..., None], 3, axis=2)
    return InstanceSample(
        rgb=rgb,
        labels=np.array([3, 1]),
        boxes_px=np.array([[6, 4, 26, 24], [40, 20, 56, 36]], np.float32),
        masks=drawn if masks else None,
        areas_px=np.array([400, 256], np.float32),
        crowd=np.array([False, True]),
        name="two",
    )


def test_resizing_moves_boxes_with_their_masks() -> None:
    found = resized(sample(), 2.0)
    assert found.rgb.shape == (80, 120, 3)
    assert found.boxes_px.tolist() == [[12, 8, 52, 48], [80, 40, 112, 72]]
    assert np.array_equal(mask_boxes(found.masks), found.boxes_px)
    assert found.areas_px.tolist() == [1600, 1024]
    assert resized(sample(masks=False), 2.0).masks is None


def test_mirroring_exchanges_left_and_right() -> None:
    found = mirrored(sample())
    assert found.boxes_px.tolist() == [[34, 4, 54, 24], [4, 20, 20, 36]]
    assert np.array_equal(mask_boxes(found.masks), found.boxes_px)
    assert np.array_equal(found.rgb[..., 0] == 100, found.masks[0])
    again = mirrored(found)
    assert np.array_equal(again.rgb, sample().rgb)
    assert np.array_equal(again.boxes_px, sample().boxes_px)


@pytest.mark.parametrize("masks", [True, False])
def test_a_window_keeps_what_it_shows(masks: bool) -> None:
    found = windowed(sample(masks), (slice(10, 30), slice(16, 36)))
    assert found.rgb.shape == (20, 20, 3)
    assert found.labels.tolist() == [3], "the other object is outside"
    assert found.boxes_px.tolist() == [[0, 0, 10, 14]]
    assert found.areas_px.tolist() == [140]
    assert found.crowd.tolist() == [False]
    if masks:
        assert np.array_equal(mask_boxes(found.masks), found.boxes_px)


def test_a_view_follows_its_settings() -> None:
    rng = np.random.default_rng(0)
    plain = InstanceViews(size_px=80, long_side_px=100, mirrored=0.0).of(sample(), rng)
    assert plain.rgb.shape == (67, 100, 3), "the long side is the limit"
    sizes = {InstanceViews(40, 60, scales=(0.5, 2.0)).of(sample(), rng).rgb.shape[0] for _ in range(20)}
    assert min(sizes) >= 20
    assert max(sizes) <= 80
    assert len(sizes) > 5
    for _ in range(5):
        view = InstanceViews(80, 120, crop_px=32, recolored=True).of(sample(), rng)
        assert view.rgb.shape == (32, 32, 3)
        assert len(view.labels) == len(view.boxes_px) == len(view.masks) == len(view.areas_px) == len(view.crowd)
    flipped = InstanceViews(40, 60, mirrored=1.0).of(sample(), rng)
    assert np.array_equal(flipped.rgb, mirrored(sample()).rgb)


def test_sizes_that_are_not_given_are_the_models() -> None:
    spec = InputSpec(40, "short_side", 32, (0, 0, 0), (1, 1, 1), 50)
    rng = np.random.default_rng(0)
    assert InstanceViews().for_model(spec).of(sample(), rng).rgb.shape == (33, 50, 3)
    assert InstanceViews(size_px=20).for_model(spec).of(sample(), rng).rgb.shape == (20, 30, 3)
    assert InstanceViews().of(sample(), rng).rgb.shape == (40, 60, 3), "without a model it keeps its size"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size_px": 2000, "long_side_px": 1333}, r"size_px must lie in 1\.\.1333"),
        ({"scales": (2.0, 1.0)}, "smaller one first"),
        ({"mirrored": 1.5}, r"mirrored must lie in 0\.\.1"),
        ({"crop_px": 0}, "crop_px must be at least 1"),
    ],
)
def test_impossible_views_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InstanceViews(**values)
