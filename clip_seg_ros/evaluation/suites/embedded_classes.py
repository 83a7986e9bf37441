# SPDX-License-Identifier: Apache-2.0
"""Evaluates semantic segmentation on scenes that training never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from clip_seg_ros.data.samples import IGNORED
from clip_seg_ros.data.tabletop import SEMANTIC_CLASSES, class_map, is_unseen
from clip_seg_ros.evaluation.metrics.classes import ConfusionMatrix, SplitIoU
from clip_seg_ros.evaluation.pages.panels import class_colors
from clip_seg_ros.evaluation.pages.pictures import COLUMNS, Gallery, captioned, grid
from clip_seg_ros.evaluation.suite import Examiner, Figure
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.sim.scene import KINDS, Scene


class ClassExaminer(Examiner):
    """Asks models for the class of every pixel: eight kinds of objects, the table and the floor.

    Args:
        predictors: Predictors by their names in the figures. Models with a fixed list of classes must have these.
        names: Names of the classes, with which the models are prompted.
        unseen: The classes of which the models had no true labels, which are measured apart, too.
    """

    def __init__(
        self,
        predictors: Mapping[str, Predictor],
        names: Sequence[str] = SEMANTIC_CLASSES,
        unseen: Sequence[str] = (),
    ) -> None:
        self._predictors, self._names = predictors, tuple(names)
        self._unseen = np.isin(self._names, unseen)
        groups = ("", ".usual_scenes", ".unseen_scenes")
        self._counts = {model: {group: ConfusionMatrix(len(names)) for group in groups} for model in predictors}
        self._galleries = {model: Gallery(COLUMNS, COLUMNS) for model in predictors}
        self._colors = class_colors(self._names)

    def examine(self, scene: Scene, view: RenderedView) -> None:
        truth = class_map(scene, view.labels)
        place = ".unseen_scenes" if is_unseen(scene.seed) else ".usual_scenes"
        for model, predictor in self._predictors.items():
            answer = predictor.predict(view.rgb, self._names).values.argmax(axis=0)
            for group in ("", place):
                self._counts[model][group].add(answer, truth)
            wrong = float((answer != truth)[truth != IGNORED].mean())
            self._galleries[model].add(wrong, partial(self._cell, view.rgb, answer, wrong))

    def figures(self) -> list[Figure]:
        figures = []
        for model, groups in self._counts.items():
            for group, counts in groups.items():
                scores = counts.scores()
                if np.isfinite(scores.pixel_accuracy):
                    name = f"embedded.{model}{group}"
                    figures.append(Figure(f"{name}.miou", round(scores.mean_iou, 4), "IoU, mean over classes"))
            scores = groups[""].scores()
            kinds = float(np.nanmean(scores.iou[: len(KINDS)]))
            figures.append(Figure(f"embedded.{model}.kinds.miou", round(kinds, 4), "IoU, mean over kinds of object"))
            figures.append(Figure(f"embedded.{model}.pixel_accuracy", round(scores.pixel_accuracy, 4), "share"))
            split = SplitIoU.of(scores.iou, self._unseen)
            if np.isfinite(split.harmonic):
                for name, value in (("seen", split.seen), ("unseen", split.unseen), ("harmonic", split.harmonic)):
                    figures.append(Figure(f"embedded.{model}.{name}_iou", round(value, 4), "IoU, mean over classes"))
            figures += [
                Figure(f"embedded.{model}.class.{name}", round(float(iou), 4), "IoU")
                for name, iou in zip(self._names, scores.iou, strict=True)
                if np.isfinite(iou)  # a class that is in no image has no IoU
            ]
        return figures

    def pictures(self) -> dict[str, np.ndarray]:
        """Returns a row of random answers and one of the worst for every model: class colours over the image."""
        return {model: grid(gallery.cells()) for model, gallery in self._galleries.items()}

    def _cell(self, rgb: np.ndarray, answer: np.ndarray, wrong: float) -> np.ndarray:
        present = [index for index in np.unique(answer) if index < len(KINDS)]
        colored = np.where((answer < len(KINDS))[..., None], 0.4 * rgb + 0.6 * self._colors[answer], 0.8 * rgb)
        names = ", ".join(self._names[index] for index in present)
        return captioned(colored.astype(np.uint8), f"{wrong:.1%} wrong: {names}")
