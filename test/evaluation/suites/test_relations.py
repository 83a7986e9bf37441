# SPDX-License-Identifier: Apache-2.0
"""What the suite says of a model that answers the truth, and of one that takes the first thing for all."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from clip_seg_ros.commands.references import Reference, Relation, Superlative
from clip_seg_ros.evaluation.suites.relation_truth import Truth, true_objects, truth_of
from clip_seg_ros.evaluation.suites.relations import RelationsExaminer, scenes_of
from clip_seg_ros.models.spec import NOTHING_CORRECTED
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.preprocess import Geometry
from clip_seg_ros.pipeline.separation import Separator
from clip_seg_ros.sim.renderer import SceneRenderer
from clip_seg_ros.types import ObjectRegion


class Honest:
    """Answers names with the truth."""

    spec = SimpleNamespace(threshold=0.5, calibration=NOTHING_CORRECTED)

    def __init__(self, views):
        self._views = views

    def encode(self, rgb):
        return next(view for view in self._views if view.rgb is rgb)

    def ask_cells(self, view, prompts):
        values = np.stack([self.mask(view, prompt).astype(np.float32) for prompt in prompts])
        return CellMaps(tuple(prompts), values, Geometry(view.labels.shape, view.labels.shape))

    def mask(self, view, prompt):
        color, _, kind = prompt.rpartition(" ")
        return view.mask_of(color or None, None if kind == "object" else kind)


class First(Honest):
    """Takes the first object of the scene for whatever is named."""

    def mask(self, view, prompt):
        return view.labels == view.labels[view.labels > 0].min()


class Apart:
    """Gives each object of the truth a region of its own, as a perfect separator would."""

    def __init__(self, views):
        self._views = views

    def separate(self, regions, maps, frame, least_px=1, singles=None):
        labels = next(view for view in self._views if view.rgb is frame.rgb).labels
        found = []
        for name in dict.fromkeys(region.prompt for region in regions):
            named = np.any([region.mask for region in regions if region.prompt == name], axis=0)
            parts = [(labels == label) & named for label in np.unique(labels[labels > 0])]
            found += [(name, part) for part in parts if np.count_nonzero(part) >= least_px]
        return [ObjectRegion.of_mask(name, id, 0.9, part) for id, (name, part) in enumerate(found, start=1)]


@pytest.fixture(scope="module")
def scenes():
    with SceneRenderer() as renderer:
        drawn = [pair for seed in (10_001, 10_030, 10_055) for pair in scenes_of(seed)]
        return [(scene, renderer.render(scene), on) for scene, on in drawn]


def figures_of(scenes, model, separator) -> dict[str, float]:
    examiner = RelationsExaminer(model([view for _, view, _ in scenes]), separator)
    for scene, view, on in scenes:
        examiner.examine_stacked(scene, view, on)
    (picture,) = examiner.pictures().values()
    assert picture.shape[2] == 3
    return {figure.name: figure.value for figure in examiner.figures()}


def test_the_figures_tell_models_apart(scenes) -> None:
    honest = figures_of(scenes, Honest, Apart([view for _, view, _ in scenes]))
    first = figures_of(scenes, First, Separator.load())
    assert honest["relations.expressions"] >= 6 * len(scenes) / 2
    assert honest["relations.geometry.mean_iou"] > 0.93
    assert honest["relations.geometry.ceiling.mean_iou"] > 0.98
    assert honest["relations.no_depth.mean_iou"] > 0.75
    assert honest["relations.absent.answered"] <= 0.1
    assert honest["relations.ambiguous.recognised"] >= 0.9
    assert honest["relations.counts.exact"] >= 0.9
    assert first["relations.geometry.mean_iou"] < 0.4
    assert first["relations.ambiguous.recognised"] < 0.2
    assert first["relations.counts.exact"] < 0.8
    assert first["relations.true_masks.mean_iou"] == honest["relations.true_masks.mean_iou"]


def test_every_kind_of_expression_is_asked(scenes) -> None:
    examiner = RelationsExaminer(Honest([view for _, view, _ in scenes]), Apart([view for _, view, _ in scenes]))
    for scene, view, on in scenes:
        examiner.examine_stacked(scene, view, on)

    groups = {each.question.group for each in examiner.scored}

    assert {"side", "depth", "superlative", "order", "number", "exclusion", "absent", "ambiguous", "count"} <= groups


def test_what_is_not_clear_has_no_truth(scenes) -> None:
    scene, view, _ = scenes[1]
    seen, _ = true_objects(scene, view, {})
    one = seen[0].names[1]
    itself = Reference(one, (Relation("left of", (Reference("pillow", count=1),)),), count=1)
    assert truth_of(itself, seen) == Truth("not found")
    kind = seen[0].kind
    assert truth_of(Reference(kind, superlative=Superlative("nearest", (Reference(kind),)), count=1), seen) is None
    everything = truth_of(Reference(kind), seen)
    assert everything is not None
    assert everything.count == sum(kind in item.names for item in seen)
