# SPDX-License-Identifier: Apache-2.0
"""What the separator is taught, and that it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clip_seg_ros.data.tabletop import TabletopScenes
from clip_seg_ros.models.separator.model import CELLS, CHANNELS, OFFSET_CELLS, WINDOW_PX
from clip_seg_ros.pipeline.separation import Separator
from clip_seg_ros.training.pocket.separator import SeparatorRecipe, SeparatorSettings
from clip_seg_ros.training.pocket.separator_windows import STORED_PX, Lesson, Windows, draw_lesson
from clip_seg_ros.training.runner import Runner

VALUES = {"scenes": 6, "steps": 30, "batch": 16, "learning_rate": 3e-3, "width": 8}


@pytest.fixture(scope="module")
def recipe() -> SeparatorRecipe:
    # Only the number of scenes and their seeds count; they are rendered again.
    size = (6, 24, 32)
    scenes = TabletopScenes(np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8), ((),) * 6)
    made = SeparatorRecipe(SeparatorSettings.from_mapping(VALUES), scenes)
    assert isinstance(made.windows, Windows)
    return made


def lessons(windows: Windows, indices: np.ndarray, count: int = 40) -> list[Lesson]:
    rng = np.random.default_rng(0)
    return [draw_lesson(windows, int(rng.choice(indices)), rng) for _ in range(count)]


def test_windows_show_regions_and_the_objects_that_they_name(recipe) -> None:
    windows = recipe.windows
    assert windows.rgb.shape[1:] == (STORED_PX, STORED_PX, 3)
    assert len(windows.single) > len(windows.several) > 3
    assert not set(windows.single) & set(windows.several)
    for index in windows.several:
        assert len(np.unique(windows.labels[index][windows.mask[index] > 127])) >= 2
    depth_m = windows.depth_m.astype(np.float32)
    assert 0.2 < np.nanmedian(depth_m) < 2.0
    assert 0.0 < np.isnan(depth_m).mean() < 0.2, "a sensor has holes"


def test_offsets_point_at_the_hottest_places(recipe) -> None:
    rows, columns = np.mgrid[:CELLS, :CELLS]
    taught = 0
    for lesson in lessons(recipe.windows, recipe.windows.several):
        known = lesson.known > 0
        x = (columns + OFFSET_CELLS * lesson.offsets[0])[known]
        y = (rows + OFFSET_CELLS * lesson.offsets[1])[known]
        middles = {(round(float(a), 2), round(float(b), 2)) for a, b in zip(x, y)}
        taught += len(middles) > 1
        assert (len(middles) > 1) == (lesson.several == 1)
        for a, b in middles:
            if 0 <= round(a) < CELLS and 0 <= round(b) < CELLS:
                assert lesson.heat[round(b), round(a)] > 0.85
        assert np.all(lesson.inside[known] == 1)
    assert taught > 20


def test_windows_of_single_objects_have_one_middle(recipe) -> None:
    for lesson in lessons(recipe.windows, recipe.windows.single):
        assert lesson.several == 0
        assert lesson.seen.shape == (CHANNELS, WINDOW_PX, WINDOW_PX)
        assert lesson.seen.dtype == lesson.offsets.dtype == np.float32


def test_the_network_learns_with_depth_and_without(recipe) -> None:
    with_depth = [lesson.seen[4:].any() for lesson in lessons(recipe.windows, recipe.windows.several)]
    assert 0.3 < np.mean(with_depth) < 0.9


def test_it_learns_in_all_its_parts_and_is_read_back(recipe, tmp_path: Path) -> None:
    before = {name: value.detach().clone() for name, value in recipe.module.named_parameters()}
    first = sum(recipe.terms(np.random.default_rng(5)).values()).item()
    runner = Runner(recipe.module, tmp_path / "state.pt", 0)
    for stage in recipe.stages():
        runner.run(stage)
    assert not [name for name, value in recipe.module.named_parameters() if torch.equal(value, before[name])]
    assert sum(recipe.terms(np.random.default_rng(5)).values()).item() < first
    (path,) = recipe.save(tmp_path / "weights")
    assert path.name == "separator.safetensors"
    Separator.load(path.parent)
