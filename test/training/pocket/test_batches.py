# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest
import torch

from clip_seg_ros.data.tabletop import SEMANTIC_CLASSES, class_map
from clip_seg_ros.sim.scene import COLORS, KINDS
from clip_seg_ros.training import distributed
from clip_seg_ros.training.pocket import batches
from clip_seg_ros.training.pocket.batches import (
    class_batch,
    crop_batch,
    example_batch,
    expression_batch,
    index_crops,
    scene_batch,
)
from nearness import assert_near


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
    assert batch.pixels.shape == (64, 3, 32, 32)
    assert batch.pixels.dtype == torch.float32
    assert batch.pixels.min() >= 0
    assert batch.pixels.max() <= 1
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
        # Every fourth pixel: looking at each takes seconds.
        classes, colors = batch.class_map[row, ::4, ::4], batch.color_map[row, ::4, ::4]
        for p, query in enumerate(queries):
            expected = np.zeros(classes.shape, bool)
            for y, x in np.ndindex(expected.shape):
                name = (*SEMANTIC_CLASSES, None)[classes[y, x]]
                if name not in KINDS:
                    expected[y, x] = query.kind is not None and query.kind == name
                    continue
                color_index = int(colors[y, x])
                color = COLORS[color_index] if color_index >= 0 else "recoloured"
                expected[y, x] = query.matches((color, name))
            assert (batch.masks[row, p, ::4, ::4].numpy() == expected).all(), query


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
    assert_near(again.pixels, first.pixels)
    assert first.queries == again.queries


def test_recolouring_can_be_left_out(few_scenes):
    batch = scene_batch(few_scenes, np.random.default_rng(0), 24, (64, 64), 1, recolor=False)
    on_object = (batch.class_map >= 0) & (batch.class_map < len(KINDS))
    assert (on_object == (batch.color_map >= 0)).all()


@pytest.fixture
def windows(few_scenes, monkeypatch):
    """(number of the scene, window) of every window that is drawn from now on."""
    drawn, zoom = [], batches.zoom

    def watched(labels, *rest):
        number = next(n for n in range(len(few_scenes)) if np.shares_memory(labels, few_scenes.labels[n]))
        drawn.append((number, zoom(labels, *rest)))
        return drawn[-1][1]

    monkeypatch.setattr(batches, "zoom", watched)
    return drawn


def test_classes_are_those_of_the_scene_through_the_window(few_scenes, windows):
    batch = class_batch(few_scenes, np.random.default_rng(0), 16, (64, 96))
    assert batch.pixels.shape == (16, 3, 64, 96)
    assert batch.labels.dtype == torch.int64
    assert {window.mirrored for _, window in windows} == {True, False}
    for labels, (number, window) in zip(batch.labels.numpy(), windows, strict=True):
        rows, columns = window.part
        # The nearest pixel is the one whose corner is the next below; divided as OpenCV does, for the rounding.
        y = rows.start + np.floor(np.arange(64) * (1 / (64 / (rows.stop - rows.start)))).astype(int)
        x = columns.start + np.floor(np.arange(96) * (1 / (96 / (columns.stop - columns.start)))).astype(int)
        expected = class_map(few_scenes.scene(number), few_scenes.labels[number])[np.ix_(y, x)]
        assert (labels == (expected[:, ::-1] if window.mirrored else expected)).all()


@pytest.fixture
def coded(few_scenes):
    """The same scenes, in which the picture says colour and kind of every object: (100 + colour, 100 + kind, 255)."""
    rgb = np.zeros_like(few_scenes.rgb)
    for n, objects in enumerate(few_scenes.objects):
        for label, (color, kind) in enumerate(objects, start=1):
            rgb[n][few_scenes.labels[n] == label] = (100 + COLORS.index(color), 100 + KINDS.index(kind), 255)
    return replace(few_scenes, rgb=rgb)


def test_examples_show_the_pair_and_nothing_else_as_it_is(coded, monkeypatch):
    monkeypatch.setattr(batches, "augment", lambda rgb, recolored, rng: torch.from_numpy(rgb))
    index = index_crops(coded)
    pairs = sorted({(COLORS[c], KINDS[k]) for c, k in zip(index.color, index.kind, strict=True)})
    shown = example_batch(coded, index, np.random.default_rng(0), pairs, 48).numpy()
    assert shown.shape == (len(pairs), 48, 48, 3)
    for picture, (color, kind) in zip(shown, pairs, strict=True):
        own = (picture == (100 + COLORS.index(color), 100 + KINDS.index(kind), 255)).all(axis=-1)
        assert own.mean() > 0.03
        # Objects as they are have full blue; the background is darkened towards the mean colour.
        full = picture[..., 2] == 255
        assert (full == own).all()


def test_a_pair_that_no_scene_shows_has_no_example(few_scenes):
    index = index_crops(few_scenes)
    shown = {(COLORS[c], KINDS[k]) for c, k in zip(index.color, index.kind, strict=True)}
    color, kind = next((c, k) for c in COLORS for k in KINDS if (c, k) not in shown)
    with pytest.raises(ValueError, match=f"no scene shows a {color} {kind} large enough"):
        example_batch(few_scenes, index, np.random.default_rng(0), [(color, kind)], 32)


@pytest.mark.parametrize("kind", ["crops", "scenes", "expressions", "classes"])
def test_the_shares_of_two_processes_are_the_batch(few_scenes, kind, monkeypatch):
    rng = np.random.default_rng(0)
    batch = {
        "crops": lambda: crop_batch(few_scenes, index_crops(few_scenes), rng, 4, 16),
        "scenes": lambda: scene_batch(few_scenes, rng, 4, (32, 32), 2),
        "expressions": lambda: expression_batch(few_scenes, rng, 4, (32, 32), 2),
        "classes": lambda: class_batch(few_scenes, rng, 4, (32, 32)),
    }[kind]()
    assert vars(batch.share()).keys() == vars(batch).keys()
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    parts = []
    for number in range(2):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        parts.append(batch.share())
    for name, whole in vars(batch).items():
        first, second = (getattr(part, name) for part in parts)
        if whole is None:
            assert first is None
            assert second is None
            continue
        together = first + second if isinstance(whole, tuple) else torch.cat([first, second])
        assert len(first) == 2
        assert together == whole if isinstance(whole, tuple) else torch.equal(together, whole)
