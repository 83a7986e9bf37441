# SPDX-License-Identifier: Apache-2.0
"""Objects at the model's resolution, beside those of maps and masks at the size of the image."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.models.spec import NOTHING_CORRECTED, InputSpec
from clip_seg_ros.pipeline.answering import Question, Stream, answer
from clip_seg_ros.pipeline.cell_maps import CellMaps, runs_of_cells
from clip_seg_ros.pipeline.postprocess import masks, regions, regions_of
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.pipeline.preprocess import Geometry
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from clip_seg_ros.types import MaskSet, ObjectRegion, ProbabilityMaps
from nearness import assert_near

COLORS = ((0.0,) * 3, (1.0,) * 3)
SQUASH, SQUARE = InputSpec(352, "squash", 16, *COLORS), InputSpec(416, "letterbox", 32, *COLORS)
PROMPTS = ("cup", "box", "ball")
LEAST_IOU = 0.995
"""What masks must have in common with those at the size of the image."""


def cell_maps(spec: InputSpec, cells: int, size: tuple[int, int], seed: int = 0) -> CellMaps:
    random = np.random.default_rng(seed)
    fields = random.normal(size=(3, 6, 8)).astype(np.float32)
    logits = np.stack([6 * cv2.resize(field, (cells, cells), interpolation=cv2.INTER_CUBIC) for field in fields])
    return CellMaps(PROMPTS, 1 / (1 + np.exp(-logits)), Geometry.fit(size, spec))


def covered(found: list[ObjectRegion], size: tuple[int, int]) -> np.ndarray:
    """(3, H, W) bool, the pixels of the objects of each prompt."""
    union = np.zeros((len(PROMPTS), *size), np.bool_)
    for region in found:
        union[PROMPTS.index(region.prompt)] |= region.mask
    return union


@pytest.mark.parametrize("tidy", [False, True])
@pytest.mark.parametrize("size", [(480, 640), (270, 480), (640, 480), (352, 352), (100, 150)])
def test_objects_are_those_of_the_whole_image(size: tuple[int, int], tidy: bool) -> None:
    for spec, cells in ((SQUASH, 352), (SQUASH, 44), (SQUARE, 104)):
        maps = cell_maps(spec, cells, size)
        full = maps.restored()
        expected = regions(full, masks(full, 0.5), 20, tidy)
        found = regions_of(runs_of_cells(maps, maps.values, 0.5), PROMPTS, 20, tidy)
        assert mask_iou(covered(found, size), covered(expected, size)) > LEAST_IOU
        assert abs(len(found) - len(expected)) <= 1  # one may have just the least area
        if spec is SQUASH:
            assert [region.prompt for region in found] == [region.prompt for region in expected]
            assert_near(np.array([region.score for region in found]), np.array([region.score for region in expected]))


def test_what_decides_may_differ_from_what_is_scored() -> None:
    maps = cell_maps(SQUASH, 44, (100, 120))
    decided = np.clip(maps.values + 0.1, 0, 1)
    found = regions_of(runs_of_cells(maps, decided, 0.5), PROMPTS)
    full = maps.restored().values
    for region in found:
        assert_near(region.score, full[PROMPTS.index(region.prompt)][region.mask].mean())
    assert min(full[PROMPTS.index(region.prompt)][region.mask].min() for region in found) < 0.45


def test_parts_and_figures_of_maps() -> None:
    maps = cell_maps(SQUASH, 44, (50, 60))
    assert maps.part(("cup", "box")).values.base is not None, "the first ones are no copy"
    np.testing.assert_array_equal(maps.part(("ball", "cup")).values, maps.values[[2, 0]])
    assert maps.best_score() == maps.values.max()
    assert_near(maps.confidence(), maps.restored().values.max(axis=0))
    nothing = maps.part(())
    assert nothing.best_score() == 0.0
    assert nothing.confidence().shape == (50, 60)
    assert not nothing.confidence().any()
    assert len(maps) == 3
    assert not nothing


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, tuple[str, ...]]]:
    """Images of the simulated table, and phrases for some of their objects."""
    with SceneRenderer() as renderer:
        views = [renderer.render(sample_scene(seed), depth=False) for seed in range(40, 48)]
    return [(view.rgb, tuple(dict.fromkeys(item.name for item in view.objects))[:4]) for view in views]


@pytest.mark.parametrize("name", ["clipseg-pocket", "cris-pocket"])
def test_answers_about_scenes_are_those_of_the_whole_image(
    name: str, scenes: list[tuple[np.ndarray, tuple[str, ...]]]
) -> None:
    predictor = Predictor.from_name(name, "cpu")
    ious, objects = [], 0
    for rgb, phrases in scenes:
        encoded = predictor.encode(rgb)
        maps = predictor.ask(encoded, phrases)
        least_px = round(0.002 * rgb.shape[0] * rgb.shape[1])
        expected = regions(maps, masks(maps, predictor.spec.threshold), least_px, tidy=True)
        found = answer(predictor, encoded, Question(phrases, min_area_fraction=0.002)).regions
        assert [(region.id, region.prompt) for region in found] == [(region.id, region.prompt) for region in expected]
        ious += [mask_iou(one.mask, other.mask) for one, other in zip(found, expected, strict=True)]
        objects += len(expected)
    assert objects > 15
    assert np.mean(ious) > LEAST_IOU
    assert min(ious) > 0.97


class _PerPixel:
    """Smoothing and hysteresis of a still image at every pixel of the image, by their definition."""

    def __init__(self) -> None:
        self.values: np.ndarray | None = None

    def objects(self, maps: ProbabilityMaps, weight: float, margin: float, threshold: float) -> list[ObjectRegion]:
        if self.values is None:
            self.values, self.inside = maps.values, maps.values > threshold
        else:
            self.values = self.values + (maps.values - self.values) * np.float32(weight)
            self.inside = self.values > threshold + np.where(self.inside, -margin, margin)
        smoothed = ProbabilityMaps(maps.prompts, self.values)
        return regions(smoothed, MaskSet(maps.prompts, self.inside, threshold), tidy=True)


@pytest.mark.parametrize(("spec", "cells"), [(SQUASH, 88), (SQUARE, 104)])
def test_steady_masks_are_those_of_every_pixel(spec: InputSpec, cells: int) -> None:
    size, random = (120, 160), np.random.default_rng(1)
    base = cell_maps(spec, cells, size)
    rgb = random.integers(60, 180, (*size, 3), dtype=np.uint8)
    stream, reference, predictor = Stream(0.9, 0.05, 0.0), _PerPixel(), _Prepared()
    for index in range(8):
        noise = cv2.resize(random.normal(0, 0.04, (20, 20)).astype(np.float32), (cells, cells))
        maps = CellMaps(PROMPTS, np.clip(base.values + noise, 0, 1), base.geometry)
        predictor.maps = maps
        found = stream.answer(predictor, None, Question(PROMPTS), rgb, index * 100_000_000)
        expected = reference.objects(maps.restored(), max(1 / (index + 1), 0.1), 0.05, 0.5)
        assert len(found.regions) == len(expected)
        assert mask_iou(covered(list(found.regions), size), covered(expected, size)) > LEAST_IOU


class _Prepared:
    """Stands where a predictor stands, and gives a prepared answer."""

    spec = SimpleNamespace(threshold=0.5, calibration=NOTHING_CORRECTED)
    maps: CellMaps

    def ask_cells(self, encoded: None, prompts: tuple[str, ...]) -> CellMaps:
        return self.maps
