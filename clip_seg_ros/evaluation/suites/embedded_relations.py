# SPDX-License-Identifier: Apache-2.0
"""Evaluates expressions that relate objects ("the cup left of the blue box") on scenes that training never saw."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from clip_seg_ros.data.expressions import Expression, ground_positions, sample_expression, seen_objects
from clip_seg_ros.data.tabletop import is_unseen
from clip_seg_ros.evaluation.metrics.referring import ReferringIoU
from clip_seg_ros.evaluation.pages.pictures import COLUMNS, Gallery, answer_cell, grid
from clip_seg_ros.evaluation.suite import Examiner, Figure
from clip_seg_ros.pipeline import postprocess
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sim.renderer import RenderedView
from clip_seg_ros.sim.scene import Scene

EXPRESSIONS_A_SCENE = 3
MIN_RELATED_SHARE = 0.002
"""The least share of the image that an object must cover to take part in relations."""


def scene_expressions(scene: Scene, view: RenderedView) -> list[Expression]:
    """Returns up to ``EXPRESSIONS_A_SCENE`` different expressions about a scene, the same ones at every call."""
    pairs = [(item.color, item.kind) for item in view.objects]
    seen = seen_objects(view.labels, pairs, ground_positions(scene), MIN_RELATED_SHARE)
    rng = np.random.default_rng([scene.seed, 8])
    drawn = (sample_expression(rng, seen) for _ in range(EXPRESSIONS_A_SCENE))
    return list({expression.text: expression for expression in drawn if expression is not None}.values())


class RelationExaminer(Examiner):
    """Asks one or more models the same expressions.

    Args:
        predictors: Predictors by their names in the figures, each with its threshold.
    """

    def __init__(self, predictors: Mapping[str, tuple[Predictor, float]]) -> None:
        self._predictors = predictors
        self._counts: dict[str, dict[str, ReferringIoU]] = {model: {} for model in predictors}
        self._asked: dict[str, int] = {}
        self._galleries = {model: Gallery(2 * COLUMNS, 2 * COLUMNS) for model in predictors}

    def examine(self, scene: Scene, view: RenderedView) -> None:
        expressions = scene_expressions(scene, view)
        if not expressions:
            return
        texts = [expression.text for expression in expressions]
        for model, (predictor, threshold) in self._predictors.items():
            answers = postprocess.masks(predictor.predict(view.rgb, texts), threshold).values
            for expression, mask in zip(expressions, answers, strict=True):
                truth = view.labels == expression.label
                place = "unseen_scenes" if is_unseen(scene.seed) else "usual_scenes"
                for group in ("all", place, expression.relation.replace(" ", "_")):
                    iou = self._counts[model].setdefault(group, ReferringIoU()).add(mask, truth)
                draw = partial(answer_cell, view.rgb, mask, truth, f"{expression.text}: {iou:.2f}")
                self._galleries[model].add(-iou, draw)
        for expression in expressions:
            self._asked[expression.relation] = self._asked.get(expression.relation, 0) + 1

    def figures(self) -> list[Figure]:
        figures = []
        for model, groups in self._counts.items():
            for group, counts in groups.items():
                scores = counts.scores()
                name = f"embedded.{model}.relations" + ("" if group == "all" else f".{group}")
                figures.append(Figure(f"{name}.mean_iou", round(scores.mean_iou, 4), "IoU"))
                levels = scores.precision_at if group == "all" else {0.5: scores.precision_at[0.5]}
                figures += [
                    Figure(f"{name}.pr_at_{level * 100:.0f}", round(share, 4), f"share with IoU > {level}")
                    for level, share in levels.items()
                ]
        figures.append(Figure("embedded.relations.count", sum(self._asked.values()), "expressions"))
        return figures

    def pictures(self) -> dict[str, np.ndarray]:
        """Returns two rows of random answers and two of the worst for every model; none if nothing was asked."""
        shown = {f"{model}_relations": gallery.cells() for model, gallery in self._galleries.items()}
        return {name: grid(cells) for name, cells in shown.items() if cells}
