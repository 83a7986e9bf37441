# SPDX-License-Identifier: Apache-2.0
"""Measures how well phrases with relations, order and number are resolved, with depth and without.

A model is asked for the names, its objects are taken apart and placed with the depth of a stereo camera, and
``pipeline.space.relations`` chooses among them. Every held-out scene is asked, one in which things of one kind stand
close together, and one in which things stand on others.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from clip_seg_ros.data.tabletop import held_out_scene, is_unseen
from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.evaluation.pages.pictures import COLUMNS, Gallery, answer_cell, grid
from clip_seg_ros.evaluation.suite import Examiner, Figure
from clip_seg_ros.evaluation.suites.relation_questions import FOUND_GROUPS, RelationQuestion, scene_references
from clip_seg_ros.evaluation.suites.relation_truth import MIN_SHARE, true_objects
from clip_seg_ros.pipeline.answering import Question, Refinement, answer
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.pipeline.separation import Separator
from clip_seg_ros.pipeline.space.localization import measure
from clip_seg_ros.pipeline.space.relations import Resolution, resolve
from clip_seg_ros.pipeline.space.solids import SpaceFrame
from clip_seg_ros.pipeline.space.understanding import FAINT
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import Scene
from clip_seg_ros.sim.sequences import noisy_depth
from clip_seg_ros.sim.stacking import stacked_scene
from clip_seg_ros.types import CameraFrame, ObjectRegion

WAYS = ("geometry", "no_depth", "true_masks")
"""With depth, without, and with depth and the true masks in place of those of the model: what geometry allows."""
_Names = Mapping[str, list[ObjectRegion]]


@dataclass(frozen=True)
class Scored:
    """One question with what became of it."""

    seed: int
    question: RelationQuestion
    way: str
    resolution: Resolution
    iou: float
    """The IoU of the chosen objects, 0..1; 0 if it was not found, NaN if there is nothing to find."""
    best_iou: float
    """The IoU of the objects that the model found best, had they been chosen."""


class RelationsExaminer(Examiner):
    """Asks a model for the names in references, and resolves these.

    Args:
        predictor: Predictor of a model of phrases.
        separator: Takes objects apart.
        threshold: Probability above which a pixel belongs to a phrase, 0..1.
    """

    def __init__(self, predictor: Predictor, separator: Separator, threshold: float = FAINT) -> None:
        self._predictor, self._refinement = predictor, Refinement(separator=separator)
        self._threshold = threshold
        self._taken_ms: list[float] = []
        self._ground_ms: list[float] = []
        self._gallery = Gallery(3 * COLUMNS, 3 * COLUMNS)
        self.scored: list[Scored] = []
        """Every answer so far."""

    def examine(self, scene: Scene, view: RenderedView) -> None:
        """Measures one scene in which everything stands on the table; ``view`` is its image with depth."""
        self.examine_stacked(scene, view, {})

    def examine_stacked(self, scene: Scene, view: RenderedView, on: Mapping[int, int]) -> None:
        """Measures one scene; ``on`` is the index of what an object stands on, by its index."""
        seen, unclear = true_objects(scene, view, on)
        questions = scene_references(seen, unclear, np.random.default_rng([scene.seed, len(on), 12]))
        if not questions:
            return
        names = tuple(dict.fromkeys(name for question in questions for name in question.reference.names()))
        depth_m = noisy_depth(view.depth_m, np.random.default_rng([scene.seed, 11]))
        frame = CameraFrame(view.rgb, 0, "", depth_m, view.intrinsics)
        asked = Question(names, (), self._threshold, MIN_SHARE)
        encoded = self._predictor.encode(view.rgb)
        regions = answer(self._predictor, encoded, asked, frame, self._refinement).regions
        true = [
            ObjectRegion.of_mask(name, item.label, 1.0, view.labels == item.label)
            for item in seen
            for name in item.names
            if name in names
        ]
        for way in WAYS:
            placed, space = self._placed(way, frame, true if way == "true_masks" else regions)
            named = _by_name(names, placed)
            for question in questions:
                start_s = time.perf_counter()
                resolution = resolve(question.reference, named, space)
                self._taken_ms.append((time.perf_counter() - start_s) * 1e3)
                self._add(scene.seed, question, way, resolution, view, named)

    def _placed(
        self, way: str, frame: CameraFrame, regions: Sequence[ObjectRegion]
    ) -> tuple[Sequence[ObjectRegion], SpaceFrame]:
        """Returns the regions with their positions and the space, as far as they are known one way."""
        if way == "no_depth":
            return regions, SpaceFrame()
        measured = [measure(region, frame) for region in regions]
        start_s = time.perf_counter()
        space = SpaceFrame.of(frame, measured)
        self._ground_ms.append((time.perf_counter() - start_s) * 1e3)
        return [each.region for each in measured], space

    def _add(
        self,
        seed: int,
        question: RelationQuestion,
        way: str,
        resolution: Resolution,
        view: RenderedView,
        named: _Names,
    ) -> None:
        truth = np.isin(view.labels, list(question.truth.labels))
        chosen = resolution.regions if resolution.state == "found" else ()
        mask = _covered(chosen, truth.shape)
        best = [
            max(named[question.reference.name], key=partial(_iou_with, view.labels == label), default=None)
            for label in question.truth.labels
        ]
        has_mask = question.group in FOUND_GROUPS
        iou = best_iou = float("nan")
        if has_mask:
            reachable = _covered([region for region in best if region is not None], truth.shape)
            iou, best_iou = mask_iou(mask, truth), mask_iou(reachable, truth)
        self.scored.append(Scored(seed, question, way, resolution, iou, best_iou))
        if way == "geometry" and has_mask:
            caption = f"{iou:.2f} {question.reference}"
            self._gallery.add(best_iou - iou, partial(answer_cell, view.rgb, mask, truth, caption))

    def figures(self) -> list[Figure]:
        figures = [Figure("relations.expressions", len(self.scored) // len(WAYS), "expressions")]
        for way in WAYS:
            figures += self._of_way(way)
        for name, taken_ms in (("ms", self._taken_ms), ("ground_ms", self._ground_ms)):
            if taken_ms:
                unit = "ms an expression" if name == "ms" else "ms an image"
                figures.append(Figure(f"relations.{name}", round(statistics.median(taken_ms), 2), unit))
        return figures

    def _of_way(self, way: str) -> list[Figure]:
        figures = []
        start = "relations." + ("" if way == "geometry" else f"{way}.")
        scored = [each for each in self.scored if each.way == way]
        named = [each for each in scored if each.question.group in FOUND_GROUPS]
        places = {"": named, **{group: [e for e in named if e.question.group == group] for group in FOUND_GROUPS}}
        places["usual_scenes"] = [each for each in named if not is_unseen(each.seed)]
        places["unseen_scenes"] = [each for each in named if is_unseen(each.seed)]
        for place, several in places.items():
            if not several:
                continue
            ious = np.array([(each.iou, each.best_iou) for each in several])
            name = f"relations.{way}." + (f"{place}." if place else "")
            figures += [
                Figure(f"{name}mean_iou", _mean(ious[:, 0]), "IoU"),
                Figure(f"{name}precision_at_50", _mean(ious[:, 0] > 0.5), "share with IoU > 0.5"),
                Figure(f"{name}ceiling.mean_iou", _mean(ious[:, 1]), "IoU of the objects that the model found best"),
                Figure(f"{name}ceiling.precision_at_50", _mean(ious[:, 1] > 0.5), "share with IoU > 0.5"),
                Figure(f"{name}count", len(several), "expressions"),
            ]
        for group, name, right in (
            ("absent", "answered", lambda each: each.resolution.state != "not found"),
            ("ambiguous", "recognised", lambda each: each.resolution.state == "ambiguous"),
            ("count", "exact", lambda each: each.resolution.count == each.question.truth.count),
        ):
            several = [each for each in scored if each.question.group == group]
            if several:
                title = "counts" if group == "count" else group
                figures.append(Figure(f"{start}{title}.{name}", _mean([right(e) for e in several]), f"share {name}"))
                figures.append(Figure(f"{start}{title}.count", len(several), "expressions"))
        return figures

    def pictures(self) -> dict[str, np.ndarray]:
        """Returns three rows of random answers, and three of those that chose the most wrongly."""
        cells = self._gallery.cells()
        return {"relations": grid(cells)} if cells else {}


def run_relations(
    examiner: RelationsExaminer, seeds: Iterable[int], progress: Callable[[Iterable], Iterable] = iter
) -> list[Figure]:
    """Runs an examiner on the held-out scenes of ``seeds``, as images of 640x480, and returns its figures.

    Each seed gives a scene, one in which objects of one kind stand close together, and one in which some objects stand
    on others.

    Raises:
        RendererUnavailable: There is no way to draw without a screen.
    """
    with SceneRenderer() as renderer:
        for seed in progress(seeds):
            for scene, on in scenes_of(seed):
                examiner.examine_stacked(scene, renderer.render(scene), on)
    return examiner.figures()


def scenes_of(seed: int) -> list[tuple[Scene, dict[int, int]]]:
    """Returns the scenes of a seed, each with what objects stand on, as ``stacked_scene`` gives it."""
    scene = held_out_scene(seed)
    stacked, on = stacked_scene(scene)
    return [(scene, {}), (held_out_scene(seed, alike=True), {}), *([(stacked, on)] if on else [])]


def _by_name(names: Iterable[str], regions: Iterable[ObjectRegion]) -> dict[str, list[ObjectRegion]]:
    found: dict[str, list[ObjectRegion]] = {name: [] for name in names}
    for region in regions:
        found[region.prompt].append(region)
    return found


def _covered(regions: Iterable[ObjectRegion], shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, np.bool_)
    for region in regions:
        mask[region.window] |= region.inside
    return mask


def _iou_with(truth: np.ndarray, region: ObjectRegion) -> float:
    common = np.count_nonzero(truth[region.window] & region.inside)
    return common / (np.count_nonzero(truth) + region.area_px - common)


def _mean(values: Iterable[float] | np.ndarray) -> float:
    return round(float(np.mean(np.asarray(list(values), np.float64))), 4)
