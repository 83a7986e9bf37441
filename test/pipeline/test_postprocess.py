# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from clip_seg_ros.pipeline.postprocess import HOLE_SHARE, SCRAP_SHARE, label_image, masks, regions, tidied
from clip_seg_ros.types import MaskSet, ObjectRegion, ProbabilityMaps
from nearness import assert_near


def maps_of(*values):
    return ProbabilityMaps(tuple(f"p{i}" for i in range(len(values))), np.array(values, np.float32))


def find_regions(maps, threshold=0.5, min_area_px=1):
    return regions(maps, masks(maps, threshold), min_area_px)


def test_a_mask_is_strictly_above_the_threshold():
    maps = maps_of([[0.0, 0.5, np.nextafter(np.float32(0.5), np.float32(1)), 1.0, np.nan]])
    decided = masks(maps, 0.5)
    assert decided.values.tolist() == [[[False, False, True, True, False]]]
    assert decided.threshold == 0.5
    assert decided.prompts == ("p0",)
    assert masks(maps, 0.0).values.tolist() == [[[False, True, True, True, False]]]
    assert not masks(maps, 1.0).values.any()


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match=r"threshold must lie in 0..1"):
        masks(maps_of([[0.5]]), threshold)


def flood(mask):
    """The 8-connected components of a mask as lists of (row, column), a pixel at a time."""
    left = {(int(row), int(column)) for row, column in zip(*np.nonzero(mask))}
    components = []
    while left:
        stack, component = [left.pop()], []
        while stack:
            row, column = stack.pop()
            component.append((row, column))
            around = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= around
            stack += around
        components.append(component)
    return components


def regions_loop(maps, threshold, min_area_px):
    """(score, prompt, area, box, centroid, pixels) of each region, by the definitions."""
    expected = []
    for prompt, probabilities in zip(maps.prompts, maps.values):
        for pixels in flood(probabilities > threshold):
            if len(pixels) < min_area_px:
                continue
            rows, columns = [row for row, _ in pixels], [column for _, column in pixels]
            score = sum(float(probabilities[pixel]) for pixel in pixels) / len(pixels)
            box = (min(columns), min(rows), max(columns) + 1, max(rows) + 1)
            centroid = (sum(columns) / len(pixels), sum(rows) / len(pixels))
            expected.append((score, prompt, len(pixels), box, centroid, set(pixels)))
    return sorted(expected, key=lambda item: -item[0])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("min_area_px", [1, 4])
def test_regions_agree_with_a_flood_fill(seed, min_area_px):
    rng = np.random.default_rng(seed)
    maps = maps_of(*rng.random((3, rng.integers(1, 24), rng.integers(1, 31))))
    threshold = 0.5 + 0.04 * seed
    found = find_regions(maps, threshold, min_area_px)
    expected = regions_loop(maps, threshold, min_area_px)
    assert len(found) == len(expected)
    for id, (region, (score, prompt, area, box, centroid, pixels)) in enumerate(zip(found, expected), start=1):
        assert (region.id, region.prompt, region.area_px, region.box_px) == (id, prompt, area, box)
        assert region.score == pytest.approx(score)
        assert region.centroid_px == pytest.approx(centroid)
        assert set(zip(*(index.tolist() for index in np.nonzero(region.mask)))) == pixels
        assert region.mask.shape == maps.values.shape[1:]
        assert region.position_m is None


def test_regions_of_a_whole_image_and_of_nothing():
    assert find_regions(maps_of(np.zeros((5, 7)))) == []
    (region,) = find_regions(maps_of(np.full((5, 7), 0.75)))
    assert region.box_px == (0, 0, 7, 5)
    assert region.centroid_px == (3.0, 2.0)
    assert region.area_px == 35
    assert region.score == 0.75
    (pixel,) = find_regions(maps_of([[0.9]]))
    assert pixel.box_px == (0, 0, 1, 1)
    assert pixel.centroid_px == (0.0, 0.0)


def test_the_smallest_area_is_inclusive():
    values = np.zeros((4, 9))
    values[0, :3] = values[2, :4] = 0.9
    assert [region.area_px for region in find_regions(maps_of(values), min_area_px=4)] == [4]


def test_prompts_may_share_pixels_and_ties_keep_their_order():
    same = np.full((3, 3), 0.8)
    found = find_regions(maps_of(same, same))
    assert [(region.id, region.prompt) for region in found] == [(1, "p0"), (2, "p1")]
    assert all(region.mask.all() for region in found)


def test_of_more_than_255_regions_the_best_are_kept():
    scores = 0.5 + 0.4 * np.random.default_rng(0).permutation(300) / 300
    values = np.zeros((30, 40))
    values[::2, ::2] = scores.reshape(15, 20)  # single pixels, no two touch
    found = find_regions(maps_of(values), threshold=0.4)
    assert [region.id for region in found] == list(range(1, 256))
    assert_near([region.score for region in found], np.sort(scores)[::-1][:255])
    labels = label_image(found, (30, 40))
    assert sorted(np.unique(labels)) == list(range(256))


def disc(shape, center, radius):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (rows - center[0]) ** 2 + (columns - center[1]) ** 2 <= radius**2


def test_tidy_regions_have_neither_scraps_nor_small_holes():
    shape = (90, 120)
    whole = disc(shape, (40, 45), 30)
    small, large = disc(shape, (35, 40), 3), disc(shape, (50, 55), 8)
    scrap, other = disc(shape, (80, 110), 3), disc(shape, (20, 100), 9)
    assert small.sum() < HOLE_SHARE * whole.sum() < large.sum()
    assert scrap.sum() < SCRAP_SHARE * whole.sum() < other.sum()
    maps = maps_of(np.where((whole & ~small & ~large) | scrap | other, 0.9, 0.1))
    assert len(find_regions(maps)) == 3
    found = regions(maps, masks(maps, 0.5), tidy=True)
    assert [region.area_px for region in found] == [(whole & ~large).sum(), other.sum()]
    expected = whole & ~large
    np.testing.assert_array_equal(found[0].mask, expected)
    rows, columns = np.nonzero(expected)
    assert found[0].centroid_px == pytest.approx((columns.mean(), rows.mean()))
    np.testing.assert_array_equal(tidied(maps, masks(maps, 0.5)).values[0], expected | other)


def test_what_lies_in_a_hole_keeps_its_pixels():
    shape = (60, 60)
    ring = disc(shape, (30, 30), 28) & ~disc(shape, (30, 30), 3)
    dot = disc(shape, (30, 30), 1)
    maps = maps_of(np.where(ring | dot, 0.9, 0.1))
    (ring_region,) = regions(maps, masks(maps, 0.5), tidy=True)
    assert not ring_region.mask[dot].any()
    assert ring_region.mask[27:29, 30].all()


@pytest.mark.parametrize("seed", range(6))
def test_tidy_regions_of_noise_share_no_pixel_and_count_their_own(seed):
    rng = np.random.default_rng(seed)
    maps = maps_of(rng.random((40, 50)), np.kron(rng.random((8, 10)), np.ones((5, 5))))
    found = regions(maps, masks(maps, 0.4), tidy=True)
    for prompt in maps.prompts:
        total = np.sum([region.mask for region in found if region.prompt == prompt], axis=0)
        assert total.max() <= 1
    for region in found:
        rows, columns = np.nonzero(region.mask)
        assert region.area_px == len(rows)
        assert region.centroid_px == pytest.approx((columns.mean(), rows.mean()))
        assert region.box_px == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_masks_of_other_prompts_or_sizes_are_refused():
    maps = maps_of(np.zeros((4, 5)))
    for prompt, shape in (("other", (1, 4, 5)), ("p0", (1, 5, 4))):
        mask_set = MaskSet((prompt,), np.zeros(shape, bool), 0.5)
        with pytest.raises(ValueError, match="do not belong"):
            regions(maps, mask_set)


def region_of(id, score, columns):
    mask = np.zeros((2, 6), bool)
    mask[:, columns] = True
    return ObjectRegion.of_mask("cup", id, score, mask)


def test_a_shared_pixel_goes_to_the_higher_score():
    low, high, tied = region_of(1, 0.6, slice(0, 4)), region_of(2, 0.9, slice(2, 5)), region_of(3, 0.6, slice(0, 2))
    for order in ([low, high, tied], [tied, high, low], [high, tied, low]):
        labels = label_image(order, (2, 6))
        assert labels.dtype == np.uint8
        assert labels.tolist() == [[1, 1, 2, 2, 2, 0]] * 2


def test_a_label_image_without_regions_is_empty():
    assert not label_image([], (3, 4)).any()


def test_a_region_of_another_image_is_refused():
    with pytest.raises(ValueError, match=r"region 7 is from an image of \(2, 6\), this one has \(6, 2\)"):
        label_image([region_of(7, 0.5, slice(0, 1))], (6, 2))
