# SPDX-License-Identifier: Apache-2.0
"""What the suite says of a model that answers the truth, and of separators that do their work, too much or nothing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from clip_seg_ros.data.tabletop import held_out_scene
from clip_seg_ros.evaluation.suites.separation import SeparationExaminer
from clip_seg_ros.models.spec import NOTHING_CORRECTED
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.preprocess import Geometry
from clip_seg_ros.pipeline.separation import Separator
from clip_seg_ros.sim.naming import pair_of
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.sim.scene import sample_scene
from clip_seg_ros.types import ObjectRegion


class Honest:
    """Answers kinds, and pairs of colour and kind, with the truth."""

    spec = SimpleNamespace(threshold=0.5, calibration=NOTHING_CORRECTED)

    def __init__(self, views):
        self._views = views

    def encode(self, rgb):
        return next(view for view in self._views if view.rgb is rgb)

    def ask_cells(self, view, prompts):
        values = np.stack([view.mask_of(*pair_of(prompt)).astype(np.float32) for prompt in prompts])
        return CellMaps(tuple(prompts), values, Geometry(view.labels.shape, view.labels.shape))


class Halver:
    """Cuts every region in two."""

    def separate(self, regions, maps, frame, least_px=1):
        halves = []
        for region in regions:
            left = region.mask.copy()
            left[:, round(region.centroid_px[0]) :] = False
            halves += [ObjectRegion.of_mask(region.prompt, 1, 0.9, half) for half in (left, region.mask & ~left)]
        return [replace(half, id=id) for id, half in enumerate(halves, start=1)]


@pytest.fixture(scope="module")
def scenes():
    with SceneRenderer() as renderer:
        drawn = [held_out_scene(seed, alike=True) for seed in range(10_000, 10_010)]
        drawn += [sample_scene(seed, alike=True, workshop=True) for seed in range(10_000, 10_006)]
        return [(scene, renderer.render(scene)) for scene in drawn]


def figures_of(scenes, separator) -> dict[str, float]:
    examiner = SeparationExaminer(Honest([view for _, view in scenes]), separator)
    for scene, view in scenes:
        examiner.examine(scene, view)
    (picture,) = examiner.pictures().values()
    assert picture.shape[2] == 3
    return {figure.name: figure.value for figure in examiner.figures()}


def test_the_figures_tell_separators_apart(scenes) -> None:
    good, halved = figures_of(scenes, Separator.load()), figures_of(scenes, Halver())
    assert good["instances.images"] == len(scenes)
    assert good["instances.touching.count"] > 4
    assert good["instances.touching.found"] > good["instances.touching.found_together"]
    assert good["instances.apart.found_together"] == 1.0
    assert good["instances.apart.found"] > 0.9
    assert good["instances.torn"] <= 0.1
    assert halved["instances.torn"] > 0.5
    assert halved["instances.apart.found"] < good["instances.apart.found"]
    assert good["instances.usual.touching.count"] == good["instances.touching.count"], "these scenes are usual ones"
    assert (
        good["instances.kinds.touching.count"] + good["instances.pairs.touching.count"]
        == (good["instances.touching.count"])
    )
    # What neither knows counts apart, by its true masks.
    assert good["instances.strange.apart.found_together"] == 1.0
    assert good["instances.strange.touching.count"] > 0
    assert good["instances.strange.touching.found"] > good["instances.strange.touching.found_together"]
    assert not any(name.startswith("instances.unseen") for name in good)
