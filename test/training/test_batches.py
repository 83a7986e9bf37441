import numpy as np
import pytest
import torch

from clip_seg_ros.data.tabletop import SEMANTIC_CLASSES
from clip_seg_ros.sim.scene import COLORS, KINDS
from clip_seg_ros.training.batches import crop_batch, index_crops, scene_batch


@pytest.fixture(scope="module")
def batch(few_scenes):
    return scene_batch(few_scenes, np.random.default_rng(0), 24, (96, 96), 3)


def test_the_crop_index_equals_a_search_pixel_by_pixel(few_scenes):
    index = index_crops(few_scenes)
    expected = []
    for n, (labels, objects) in enumerate(zip(few_scenes.labels, few_scenes.objects, strict=True)):
        for number, (color, kind) in enumerate(objects, start=1):
            rows, columns = np.nonzero(labels == number)
            if len(rows) >= 80:
                box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
                expected.append((n, number, *box, COLORS.index(color), KINDS.index(kind)))
    found = np.column_stack([index.scene, index.label, index.box, index.color, index.kind])
    assert found.tolist() == [list(map(int, row)) for row in expected]


def test_crops_are_pictures_with_names(few_scenes):
    batch = crop_batch(few_scenes, index_crops(few_scenes), np.random.default_rng(0), 64, 32)
    assert batch.pixels.shape == (64, 3, 32, 32) and batch.pixels.dtype == torch.float32
    assert 0 <= batch.pixels.min() and batch.pixels.max() <= 1
    assert 8 < (batch.color == -1).sum() < 32, "about three in ten are recoloured"
    assert set(batch.kind.tolist()) <= set(range(len(KINDS)))


def test_the_middle_of_a_red_crop_is_red(few_scenes):
    batch = crop_batch(few_scenes, index_crops(few_scenes), np.random.default_rng(1), 256, 32)
    middles = batch.pixels[:, :, 12:20, 12:20].mean((2, 3))
    reds = middles[batch.color == COLORS.index("red")]
    others = middles[batch.color == COLORS.index("green")]
    assert (reds[:, 0] - reds[:, 1]).mean() > 0.1 > (others[:, 0] - others[:, 1]).mean()


def test_masks_follow_from_the_maps(batch):
    for row, queries in enumerate(batch.queries):
        for p, query in enumerate(queries):
            expected = np.zeros(batch.class_map.shape[1:], bool)
            for y, x in np.ndindex(expected.shape):
                name = (*SEMANTIC_CLASSES, None)[batch.class_map[row, y, x]]
                if name not in KINDS:
                    expected[y, x] = query.kind is not None and query.kind == name
                    continue
                kind = name
                color_index = int(batch.color_map[row, y, x])
                color = COLORS[color_index] if color_index >= 0 else "recoloured"
                expected[y, x] = query.matches((color, kind))
            assert (batch.masks[row, p].numpy() == expected).all(), query


def test_recoloured_scenes_lose_their_colour_names_only(batch):
    recolored = [
        (m < len(KINDS)).any() and not (c >= 0).any() for c, m in zip(batch.color_map, batch.class_map, strict=True)
    ]
    assert 2 < sum(map(bool, recolored)) < 14
    for row, changed in enumerate(recolored):
        if changed:
            assert all(query.color is None for query in batch.queries[row])


def test_a_generator_fixes_a_batch(few_scenes):
    first, again = (scene_batch(few_scenes, np.random.default_rng([5, 6]), 4, (64, 64), 2) for _ in range(2))
    assert torch.equal(first.pixels, again.pixels) and first.queries == again.queries


def test_recolouring_can_be_left_out(few_scenes):
    batch = scene_batch(few_scenes, np.random.default_rng(0), 24, (64, 64), 1, recolor=False)
    on_object = (batch.class_map >= 0) & (batch.class_map < len(KINDS))
    assert (on_object == (batch.color_map >= 0)).all()
