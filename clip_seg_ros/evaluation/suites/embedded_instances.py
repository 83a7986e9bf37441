# SPDX-License-Identifier: Apache-2.0
"""Evaluates which objects are found one by one on scenes that training never saw, also where they touch."""

from __future__ import annotations

from functools import partial

import numpy as np

from clip_seg_ros.data.rendered_instances import view_instances
from clip_seg_ros.data.tabletop import is_unseen
from clip_seg_ros.evaluation.instances import InstanceScores, precision_figures
from clip_seg_ros.evaluation.metrics.touching import found_objects, touching_objects
from clip_seg_ros.evaluation.pages.pictures import COLUMNS, Gallery, captioned, grid
from clip_seg_ros.evaluation.suite import Examiner, Figure
from clip_seg_ros.pipeline.class_labels import class_regions
from clip_seg_ros.pipeline.instances import Instance
from clip_seg_ros.pipeline.overlay import PALETTE
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.sim.scene import KINDS, Scene
from clip_seg_ros.types import window_of

_NAME = "embedded.denseclip_instances"


class InstanceExaminer(Examiner):
    """Asks a detector for all objects, and a semantic model for the connected parts of its classes.

    Args:
        detector: Predictor of a detector of ``KINDS``.
        semantic: Predictor of a model that gives every pixel a class, for comparison where objects touch; ``None``
            leaves it out.
    """

    def __init__(self, detector: Predictor, semantic: Predictor | None = None) -> None:
        self._detector, self._semantic = detector, semantic
        threshold = detector.spec.threshold
        groups = ("", ".usual_scenes", ".unseen_scenes")
        self._scores = {group: InstanceScores(KINDS, True, threshold) for group in groups}
        self._connected: list[bool] = []
        self._gallery = Gallery(COLUMNS, COLUMNS)

    def examine(self, scene: Scene, view: RenderedView) -> None:
        sample = view_instances(view, f"scene {scene.seed}")
        answers = self._detector.instances(self._detector.encode(view.rgb), KINDS, 0.0, keep_same=True)
        place = ".unseen_scenes" if is_unseen(scene.seed) else ".usual_scenes"
        self._scores[place].add(sample, answers)
        _, found = self._scores[""].add(sample, answers)
        missed = int((~sample.crowd).sum()) - found
        self._gallery.add(missed, partial(self._cell, view.rgb, answers, missed))
        touches = touching_objects(sample)
        if self._semantic is not None and touches.any():
            classes = self._semantic.classify(self._semantic.encode(view.rgb), self._semantic.spec.class_names)
            regions = [region for region in class_regions(classes, 1) if region.prompt in KINDS]
            labels = [KINDS.index(region.prompt) for region in regions]
            self._connected += found_objects(sample, labels, regions)[touches].tolist()

    def figures(self) -> list[Figure]:
        figures: list[Figure] = []
        for group, scores in self._scores.items():
            name = f"{_NAME}{group}"
            precisions = scores.precisions()
            share, count = scores.touching()
            figures += precision_figures(name, "mask", precisions["mask"])
            if not group:
                figures += precision_figures(name, "box", precisions["box"])
                pairs = zip(KINDS, precisions["mask"].class_ap50.tolist(), strict=True)
                figures += [Figure(f"{name}.class.{kind}", value, "AP at IoU 0.5") for kind, value in pairs]
            figures.append(Figure(f"{name}.touching.found", share, "share with IoU > 0.5"))
            figures.append(Figure(f"{name}.touching.count", count, "objects"))
        if self._connected:
            connected = float(np.mean(self._connected))
            figures.append(Figure(f"{_NAME}.touching.found_by_connected_parts", connected, "share with IoU > 0.5"))
        return [
            Figure(figure.name, round(figure.value, 4), figure.unit) for figure in figures if np.isfinite(figure.value)
        ]

    def pictures(self) -> dict[str, np.ndarray]:
        """Returns a row of random answers and one of the worst: each object in a colour of its own."""
        return {"denseclip_instances": grid(self._gallery.cells())}

    def _cell(self, rgb: np.ndarray, answers: list[Instance], missed: int) -> np.ndarray:
        shown = rgb.copy()
        sure = [item for item in answers if item.score >= self._detector.spec.threshold]
        for number, item in enumerate(sure):
            part = shown[window_of(item.box_px)]
            part[item.inside] = 0.4 * part[item.inside] + 0.6 * np.array(PALETTE[number % len(PALETTE)])
        return captioned(shown, f"{missed} missed: {', '.join(item.name for item in sure)}")
