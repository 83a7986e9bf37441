# SPDX-License-Identifier: Apache-2.0
"""Measures how much better masks fit objects after ``pipeline.edges``, and what that costs.

Published CLIPSeg weights are not at hand here. Their decoder answers at 22 x 22 tokens and brings that smoothly to
352 x 352; the embedded model's probabilities are made as coarse by averaging them over 22 x 22 cells. The boundary
measure F is stricter here than that of DAVIS: borders must lie within 2 pixels at 640x480, not within 7.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np

from clip_seg_ros.evaluation.metrics.boundary import boundary_score
from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.evaluation.pages.pictures import COLUMNS, Gallery, answer_cell, grid
from clip_seg_ros.evaluation.suite import Examiner, Figure
from clip_seg_ros.evaluation.suites.embedded import phrase_of, scene_questions
from clip_seg_ros.pipeline.answering import Question, answered, with_edges
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.edges import refined
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.pipeline.preprocess import Geometry
from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.sim.scene import Scene
from clip_seg_ros.types import ObjectRegion

TOKENS, DECODED_PX = 22, 352
"""The sides of the tokens and of the answer of CLIPSeg's published weights."""
TOLERANCE = 2 / 800
"""The distance within which borders match, as a share of the diagonal: 2 pixels at 640x480."""
MIN_AREA_FRACTION = 0.002
"""The smallest object, as the nodes have it by default."""
SIZES = {"vga": (480, 640), "1080p": (1080, 1920)}
"""The sizes (H, W) at which the cost is measured."""
TIMED_OBJECTS = 2
_REPEATS = 3


def coarse(maps: CellMaps) -> CellMaps:
    """Returns the probabilities as coarse as CLIPSeg's published weights give them: (P, 352, 352)."""
    values = np.empty((len(maps), DECODED_PX, DECODED_PX), np.float32)
    for value, out in zip(maps.values, values):
        tokens = cv2.resize(value, (TOKENS, TOKENS), interpolation=cv2.INTER_AREA)
        cv2.resize(tokens, (DECODED_PX, DECODED_PX), dst=out, interpolation=cv2.INTER_CUBIC)
    return CellMaps(maps.prompts, values.clip(0.0, 1.0), Geometry(maps.size, (DECODED_PX, DECODED_PX)))


class EdgeExaminer(Examiner):
    """Asks a model for every visible pair of colour and kind, and compares its masks with refined ones.

    Args:
        predictor: Predictor of a CLIPSeg.
        threshold: Probability above which a pixel belongs to a phrase, 0..1.
    """

    def __init__(self, predictor: Predictor, threshold: float = 0.5) -> None:
        self._predictor, self._threshold = predictor, threshold
        self._scores: dict[str, list[tuple[float, float, float]]] = {}
        self._taken_ms: dict[str, list[float]] = {name: [] for name in SIZES}
        self._cpu_ms: dict[str, list[float]] = {name: [] for name in SIZES}
        self._scenes = 0
        self._gallery = Gallery(2 * COLUMNS, 0)

    def examine(self, scene: Scene, view: RenderedView) -> None:
        self._scenes += 1
        asked = scene_questions(view, np.random.default_rng([scene.seed, 5]))
        pairs = [pattern for group, pattern in asked if group.endswith("pair")]
        if not pairs:
            return
        question = Question(tuple(map(phrase_of, pairs)), (), self._threshold, MIN_AREA_FRACTION)
        own = self._predictor.ask_cells(self._predictor.encode(view.rgb), question.prompts)
        truths = [view.mask_of(*pair) for pair in pairs]
        for prefix, maps in (("own_", own), ("", coarse(own))):
            before = answered(question, maps, self._predictor.spec)
            after = with_edges(before, question, self._threshold, view.rgb)
            for name, answer in (("unrefined", before), ("refined", after)):
                for prompt, truth in zip(question.prompts, truths, strict=True):
                    self._add(f"{prefix}{name}", covered(answer.regions, prompt, truth.shape), truth)
        for prompt, truth in zip(question.prompts, truths, strict=True):
            masks = [covered(answer.regions, prompt, truth.shape) for answer in (before, after)]
            self._gallery.add(0.0, partial(_pair_cell, view.rgb, masks, truth, prompt))
        self._time(before.regions, before.maps, view.rgb)

    def _add(self, name: str, mask: np.ndarray, truth: np.ndarray) -> None:
        """Keeps the scores of one mask."""
        strict, usual = boundary_score(mask, truth, TOLERANCE).f, boundary_score(mask, truth).f
        self._scores.setdefault(name, []).append((strict, usual, mask_iou(mask, truth)))

    def _time(self, regions: Sequence[ObjectRegion], maps: CellMaps, rgb: np.ndarray) -> None:
        """Times the refinement of the largest objects, in the image and in one that is enlarged."""
        if len(regions) < TIMED_OBJECTS:
            return
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            for name, size in SIZES.items():
                question = Question(maps.prompts, (), self._threshold, MIN_AREA_FRACTION)
                large = CellMaps(maps.prompts, maps.values, Geometry(size, maps.geometry.model_size))
                found = answered(question, large, self._predictor.spec).regions
                two = sorted(found, key=lambda region: -region.area_px)[:TIMED_OBJECTS]
                picture = cv2.resize(rgb, size[::-1])
                for _ in range(_REPEATS):
                    start_s, start_cpu_s = time.perf_counter(), time.thread_time()
                    refined(two, large, picture, self._threshold)
                    self._cpu_ms[name].append((time.thread_time() - start_cpu_s) * 1e3)
                    self._taken_ms[name].append((time.perf_counter() - start_s) * 1e3)
        finally:
            cv2.setNumThreads(threads)

    def figures(self) -> list[Figure]:
        found = [Figure("edges.scenes", self._scenes, "scenes")]
        for name, scores in self._scores.items():
            strict, usual, iou = (round(float(mean), 4) for mean in np.mean(scores, axis=0))
            found += [
                Figure(f"edges.{name}.boundary_f", strict, "F within 2 px at 640x480"),
                Figure(f"edges.{name}.boundary_f_davis", usual, "F within 7 px at 640x480"),
                Figure(f"edges.{name}.mean_iou", iou, "IoU"),
                Figure(f"edges.{name}.count", len(scores), "phrases"),
            ]
        for name, taken_ms in self._taken_ms.items():
            if taken_ms:
                found.append(Figure(f"edges.{name}.ms", round(statistics.median(taken_ms), 2), "ms for two objects"))
                cpu_ms = round(statistics.median(self._cpu_ms[name]), 2)
                found.append(Figure(f"edges.{name}.cpu_ms", cpu_ms, "ms of the processor for two objects"))
                found.append(Figure(f"edges.{name}.least_ms", round(min(taken_ms), 2), "ms for two objects"))
        return found

    def pictures(self) -> dict[str, np.ndarray]:
        """Returns two rows of random coarse masks, each above its refined one; empty before the first answer."""
        cells = self._gallery.cells()
        return {"edges": grid(cells)} if cells else {}


def _pair_cell(rgb: np.ndarray, masks: Sequence[np.ndarray], truth: np.ndarray, prompt: str) -> np.ndarray:
    """Draws a mask above its refined one, (480, 320, 3) uint8."""
    captions = (f"{prompt}: as the model says", f"{prompt}: refined")
    return np.concatenate([answer_cell(rgb, mask, truth, caption) for mask, caption in zip(masks, captions)])


def covered(regions: Sequence[ObjectRegion], prompt: str, shape: tuple[int, int]) -> np.ndarray:
    """Returns the pixels that the regions of a prompt cover, (H, W) bool."""
    mask = np.zeros(shape, np.bool_)
    for region in regions:
        if region.prompt == prompt:
            mask[region.window] |= region.inside
    return mask
