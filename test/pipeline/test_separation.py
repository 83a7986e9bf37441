# SPDX-License-Identifier: Apache-2.0
"""Objects of one name that touch are found one by one, with the weights of the package."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.preprocess import Geometry
from clip_seg_ros.pipeline.separation import Separator, Window, depth_channels, window_input
from clip_seg_ros.pipeline.stream.singles import Singles
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import KINDS, sample_scene
from clip_seg_ros.types import CameraFrame, CameraIntrinsics, ObjectRegion

SIZE = (480, 640)


@pytest.fixture(scope="module")
def separator() -> Separator:
    return Separator.load()


@pytest.fixture(scope="module")
def views() -> list[RenderedView]:
    """Tables on which objects of one kind stand close together, of seeds that no training uses."""
    with SceneRenderer() as renderer:
        return [renderer.render(sample_scene(seed, alike=True, objects=(6, 9))) for seed in range(11_500, 11_508)]


def frame_of(view: RenderedView, depth: bool = True) -> CameraFrame:
    return CameraFrame(view.rgb, 0, "", view.depth_m if depth else None, view.intrinsics)


def regions_of(view: RenderedView) -> tuple[list[ObjectRegion], list[list[np.ndarray]]]:
    """Returns the true masks of the kinds as connected regions, and for each the masks of its objects."""
    regions, inside = [], []
    for kind in KINDS:
        count, parts = cv2.connectedComponents(view.mask_of(None, kind).view(np.uint8), connectivity=8)
        for part in range(1, count):
            mask = parts == part
            if mask.sum() > 1200:
                regions.append(ObjectRegion.of_mask(kind, len(regions) + 1, 0.9, mask))
                objects = [mask & (view.labels == number) for number in np.unique(view.labels[mask])]
                inside.append([each for each in objects if each.sum() > 600])
    return regions, inside


def maps_of(*prompts: str, size: tuple[int, int] = SIZE, value: float = 0.9) -> CellMaps:
    shape = (size[0] // 4, size[1] // 4)
    return CellMaps(prompts, np.full((len(prompts), *shape), value, np.float32), Geometry(size, shape))


@pytest.mark.parametrize("depth", [True, False])
def test_touching_objects_come_apart_and_single_ones_stay_whole(separator, views, depth) -> None:
    found = touching = torn = singles = 0
    for view in views:
        regions, inside = regions_of(view)
        for region, objects in zip(regions, inside, strict=True):
            parts = separator.separate([region], maps_of(*KINDS), frame_of(view, depth), 600)
            if len(objects) > 1:
                touching += len(objects)
                found += sum(max(mask_iou(part.mask, each) for part in parts) > 0.5 for each in objects)
            else:
                singles += 1
                torn += len(parts) > 1
    assert touching >= 10
    assert singles >= 20
    assert found >= 0.75 * touching
    assert torn <= 0.05 * singles


def heap_of(views: list[RenderedView]) -> tuple[RenderedView, ObjectRegion]:
    """Returns the largest region of several objects, with its image."""
    heaps = [
        (region.area_px, index, region)
        for index, view in enumerate(views)
        for region, objects in zip(*regions_of(view), strict=True)
        if len(objects) > 1
    ]
    _, index, region = max(heaps, key=lambda heap: heap[0])
    return views[index], region


def test_parts_share_no_pixel_lose_none_and_describe_their_masks(separator, views) -> None:
    view, heap = heap_of(views)
    other = ObjectRegion.of_mask("table", 2, 0.95, view.labels == 0)
    parts = separator.separate([heap, other], maps_of(heap.prompt, "table"), frame_of(view), 600)
    assert [part.id for part in parts] == list(range(1, len(parts) + 1))
    own = [part for part in parts if part.prompt == heap.prompt]
    assert len(own) > 1
    np.testing.assert_array_equal(np.sum([part.mask for part in own], axis=0), heap.mask.astype(int))
    for part in own:
        derived = ObjectRegion.of_mask(part.prompt, part.id, part.score, part.mask)
        assert (part.box_px, part.area_px) == (derived.box_px, derived.area_px)
        assert part.centroid_px == pytest.approx(derived.centroid_px)
        assert part.area_px >= 600


def test_the_score_of_a_part_is_the_mean_of_its_own_pixels(separator, views) -> None:
    view, heap = heap_of(views)
    maps = maps_of(heap.prompt)
    maps.values[0, :, : maps.values.shape[2] * int(heap.centroid_px[0]) // SIZE[1]] = 0.6
    parts = separator.separate([heap], maps, frame_of(view), 600)
    restored = maps.restored().values[0]
    assert len(parts) > 1
    for part in parts:
        assert part.score == pytest.approx(float(restored[part.mask].mean()), abs=0.02)
    assert [part.score for part in parts] == sorted((part.score for part in parts), reverse=True)


def test_objects_below_the_least_area_are_none(separator, views) -> None:
    view, heap = heap_of(views)
    (part,) = separator.separate([heap], maps_of(heap.prompt), frame_of(view), heap.area_px // 2 + 1)
    assert part is heap


def test_an_image_without_regions_has_none(separator) -> None:
    assert separator.separate([], maps_of(), CameraFrame(np.zeros((*SIZE, 3), np.uint8), 0, "")) == []


def test_a_region_at_the_border_of_a_small_image_is_looked_at(separator) -> None:
    mask = np.zeros((24, 30), bool)
    mask[:20, :30] = True
    frame = CameraFrame(np.zeros((24, 30, 3), np.uint8), 0, "", np.full((24, 30), np.nan, np.float32))
    parts = separator.separate([ObjectRegion.of_mask("cup", 1, 0.5, mask)], maps_of("cup", size=(24, 30)), frame)
    np.testing.assert_array_equal(np.sum([part.mask for part in parts], axis=0), mask.astype(int))


def test_sizes_that_differ_are_refused(separator) -> None:
    region = ObjectRegion.of_mask("cup", 1, 0.5, np.ones(SIZE, bool))
    with pytest.raises(ValueError, match=r"region 1 is of an image of \(480, 640\), this has \(48, 64\)"):
        separator.separate([region], maps_of("cup"), CameraFrame(np.zeros((48, 64, 3), np.uint8), 0, ""))
    lens = CameraIntrinsics(500.0, 500.0, 31.5, 23.5, 64, 48)
    frame = CameraFrame(np.zeros((*SIZE, 3), np.uint8), 0, "", None, lens)
    with pytest.raises(ValueError, match="the image is 640x480, its intrinsics are for 64x48"):
        separator.separate([region], maps_of("cup"), frame)


def test_missing_weights_are_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"separator\.safetensors does not exist"):
        Separator.load(tmp_path)


def test_a_single_object_that_stays_is_not_looked_at_again(separator, views, monkeypatch) -> None:
    looked = []
    monkeypatch.setattr(
        "clip_seg_ros.pipeline.separation.window_input",
        lambda region, frame: looked.append(region.id) or window_input(region, frame),
    )
    view = views[0]
    regions, inside = regions_of(view)
    single = next(region for region, objects in zip(regions, inside, strict=True) if len(objects) == 1)
    singles = Singles()
    for _ in range(3):
        assert separator.separate([single], maps_of(single.prompt), frame_of(view), 600, singles) == [single]
    assert looked == [single.id]


def test_a_window_is_square_has_a_margin_and_may_reach_beyond_the_image() -> None:
    window = Window.around((0, 10, 20, 60))
    assert window.side == 50 + 2 * 7
    assert (window.left, window.top) == (-22, 3)
    picture = np.zeros((70, 40), np.float32)
    picture[:, 0] = 1.0
    assert window.cut(picture, 64)[:, :23].min() == 1.0, "the border is repeated"
    beyond = window.cut(picture, 64, cv2.BORDER_CONSTANT)
    assert beyond[:, :22].max() == 0.0
    assert beyond[:, 22].min() == 1.0


def test_what_the_network_sees_lies_on_top_of_itself(views) -> None:
    region = regions_of(views[0])[0][0]
    bright = np.where(region.mask[..., None], np.uint8(255), np.zeros(3, np.uint8))
    far = np.where(region.mask, np.float32(1.0), np.float32(1.2))
    seen = window_input(region, CameraFrame(bright, 0, "", far))
    np.testing.assert_allclose(seen[0], seen[3], atol=0.01)
    inside = seen[3] > 0.99
    # Depths are chosen and not mixed, which shifts them by up to half a pixel of the window.
    assert np.mean(seen[4][inside] == 0.0) > 0.97
    assert np.mean(seen[4][seen[3] < 0.01] > 0.0) > 0.97
    assert seen[5].min() == 1.0


def test_depth_is_seen_in_sizes_of_the_window_and_holes_as_holes() -> None:
    inside = np.ones((8, 8), bool)
    depth = np.full((8, 8), 2.0, np.float32)
    depth[0], depth[1], depth[2], depth[3] = np.nan, 2.1, 9.0, 0.0
    channels = depth_channels(depth, inside, side_per_m=0.1)  # the window is 0.2 m large there
    assert channels[1].all(axis=1).tolist() == [False, True, True, False, True, True, True, True]
    assert channels[0, :, 0].tolist() == pytest.approx([0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0], abs=1e-5)
    assert not depth_channels(np.full((8, 8), np.nan, np.float32), inside, 0.1).any()
