# SPDX-License-Identifier: Apache-2.0
"""Evaluates image prompts: an object is shown in another scene and is to be found in this one (CLIPSeg, table 1)."""

from __future__ import annotations

import numpy as np

from clip_seg_ros.data.tabletop import present_pairs
from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.evaluation.suite import Examiner, Figure
from clip_seg_ros.evaluation.suites.embedded import MIN_NAMED_SHARE
from clip_seg_ros.models.clipseg.visual_prompts import MARGIN, fade_background
from clip_seg_ros.pipeline import postprocess
from clip_seg_ros.pipeline.predictor import Predictor
from clip_seg_ros.sim.renderer import RenderedView, SceneRenderer
from clip_seg_ros.sim.scene import Scene, sample_scene

FIRST_EXAMPLE_SEED = 20_000
"""The offset from the seed of a scene to that of the scene with its example; training uses neither."""
WAYS = ("blur_dark_crop", "crop", "blur_dark", "none")
"""The ways to prepare the example, from the paper's best to none."""


class ExampleExaminer(Examiner):
    """Asks for one visible object per scene by an example of the same colour and kind.

    Args:
        predictor: Predictor of a CLIPSeg.
        threshold: Probability above which a pixel belongs to the answer.
    """

    def __init__(self, predictor: Predictor, threshold: float = 0.5) -> None:
        self._predictor, self._threshold = predictor, threshold
        self._renderer = SceneRenderer()
        self._ious: dict[str, list[float]] = {way: [] for way in (*WAYS, "mixed", "text")}

    def examine(self, scene: Scene, view: RenderedView) -> None:
        pairs = [(item.color, item.kind) for item in view.objects]
        visible = sorted(present_pairs(pairs, view.labels, MIN_NAMED_SHARE))
        if not visible:
            return
        pair = visible[np.random.default_rng([scene.seed, 9]).integers(len(visible))]
        example = self._renderer.render(sample_scene(FIRST_EXAMPLE_SEED + scene.seed, required=[pair]), depth=False)
        shown, truth = example.mask_of(*pair), view.mask_of(*pair)
        text = " ".join(pair)
        for way in WAYS:
            self._predictor.add_image_prompt(way, *_shown(way, example.rgb, shown))
        self._predictor.add_image_prompt("mixed", example.rgb, shown, text=text)
        try:
            # One question, because the features of the image serve all of its prompts.
            maps = self._predictor.predict(view.rgb, [*WAYS, "mixed", text])
        finally:
            for name in (*WAYS, "mixed"):
                self._predictor.remove_image_prompt(name)
        masks = postprocess.masks(maps, self._threshold).values
        for ious, mask in zip(self._ious.values(), masks, strict=True):
            ious.append(mask_iou(mask, truth))

    def figures(self) -> list[Figure]:
        figures = [
            Figure(f"embedded.clipseg.example.{way}.mean_iou", round(float(np.mean(ious)), 4), "IoU")
            for way, ious in self._ious.items()
            if ious
        ]
        return [*figures, Figure("embedded.clipseg.example.count", len(self._ious["text"]), "objects")]


def _shown(way: str, rgb: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the example image and mask with which ``add_image_prompt`` applies only the steps named by ``way``.

    If the mask covers the whole image, nothing is blurred, darkened or cropped.
    """
    if way == "blur_dark_crop":
        return rgb, mask
    if way == "crop":
        rgb = _cropped(rgb, mask)
    elif way == "blur_dark":
        rgb = fade_background(rgb, mask)
    return rgb, np.ones(rgb.shape[:2], bool)


def _cropped(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rgb[_grown(mask.any(axis=1)), _grown(mask.any(axis=0))])


def _grown(occupied: np.ndarray) -> slice:
    """Returns the part of an axis that ``crop_to_object`` keeps for an object at the occupied pixels, (side,) bool."""
    places = np.flatnonzero(occupied)
    first, end = places[0], places[-1] + 1
    spare = MARGIN * (end - first)
    return slice(max(0, int(first - spare)), int(end + spare))
