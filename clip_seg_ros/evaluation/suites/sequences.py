# SPDX-License-Identifier: Apache-2.0
"""Measures the stability of ids, masks and positions on simulated sequences, with and without tracking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from clip_seg_ros.config import ReferringConfig
from clip_seg_ros.evaluation.metrics.masks import mask_iou
from clip_seg_ros.evaluation.metrics.tracking import TrackingMeter, TrueObject
from clip_seg_ros.evaluation.suite import Figure
from clip_seg_ros.pipeline.answering import Question, Refinement, Stream
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.predictor import EncodedImage, Predictor
from clip_seg_ros.pipeline.separation import Separator
from clip_seg_ros.pipeline.space.localization import with_position
from clip_seg_ros.sim.sequences import SequenceFrame, noisy_depth, sequence
from clip_seg_ros.types import CameraFrame, ObjectRegion

FIRST_SEED = 10_000
"""The first seed of the scenes with which sequences begin; training never uses them."""
MIN_AREA_FRACTION = 0.002
_NODE = ReferringConfig()
VARIANTS: dict[str, tuple[float, float, float, bool]] = {
    "plain": (0.0, 0.0, 0.0, False),
    "tracked": (0.0, 0.0, _NODE.track_age_s, False),
    "steady": (_NODE.smoothing, _NODE.hysteresis, _NODE.track_age_s, _NODE.separate_touching),
}
"""The smoothing, the hysteresis, the seconds for which ids are kept, and whether objects that touch are taken apart;
"steady" has the defaults of the node."""


class _AskedOnce:
    """Gives all variants the same answer of the model to an image, because they only differ in its processing."""

    def __init__(self, predictor: Predictor) -> None:
        self.spec = predictor.spec
        self._predictor = predictor
        self._encoded: EncodedImage | None = None

    def ask_cells(self, encoded: EncodedImage, prompts: Sequence[str]) -> CellMaps:
        if encoded is not self._encoded:
            self._encoded, self._maps = encoded, self._predictor.ask_cells(encoded, prompts)
        return self._maps


class _Variant:
    """One variant of processing, and its scores."""

    def __init__(self, settings: tuple[float, float, float, bool], separator: Separator) -> None:
        self._settings, self._refinement = settings[:3], Refinement(separator=separator if settings[3] else None)
        self.meters = {"clean": TrackingMeter(), "noisy": TrackingMeter()}
        """The meters by the depth with which positions are measured."""
        self.ious: list[float] = []

    def start(self) -> None:
        self._stream = Stream(*self._settings, self._refinement)
        for meter in self.meters.values():
            meter.start_sequence()

    def look(
        self,
        asked: _AskedOnce,
        encoded: EncodedImage,
        question: Question,
        frame: SequenceFrame,
        depths_m: dict[str, np.ndarray],
        truth: Sequence[TrueObject],
    ) -> None:
        view = frame.view
        seen = CameraFrame(view.rgb, frame.stamp_ns, "", depths_m["noisy"], view.intrinsics)
        maps = asked.ask_cells(encoded, question.phrases)
        looking = self._stream.look(view.rgb, frame.stamp_ns)
        regions = self._stream.finish(asked, maps, question, looking, seen).regions
        masks = np.stack([_covered(regions, prompt, view.labels.shape) for prompt in question.prompts])
        for name, meter in self.meters.items():
            camera = CameraFrame(view.rgb, frame.stamp_ns, "", depths_m[name], view.intrinsics)
            meter.add([with_position(region, camera) for region in regions], masks, truth, frame.still)
        for row, prompt in enumerate(question.prompts):
            true = np.any([item.mask for item in truth if item.prompt == prompt], axis=0)
            if true.any():
                self.ious.append(mask_iou(masks[row], true))


def run_sequences(
    predictor: Predictor, count: int, frames: int, progress: Callable[[Iterable], Iterable] = iter
) -> list[Figure]:
    """Asks for the kinds of objects in every frame of ``count`` sequences of ``frames`` images, 640x480.

    Positions are measured twice: with exact depth, and with the noise and the holes of a depth camera.

    Args:
        predictor: Predictor of the model.
        count: Number of sequences.
        frames: Number of images in each sequence.
        progress: Wraps the seeds, for a progress bar.

    Raises:
        RendererUnavailable: This machine cannot render.
        ValueError: A number is out of range.
    """
    separator = Separator.load()
    variants = {name: _Variant(settings, separator) for name, settings in VARIANTS.items()}
    asked = _AskedOnce(predictor)
    for seed in progress(range(FIRST_SEED, FIRST_SEED + 50 * count, 50)):
        rng = np.random.default_rng([seed, 10])
        for variant in variants.values():
            variant.start()
        for frame in sequence(seed, frames, depth_noise=False):
            kinds = tuple(dict.fromkeys(item.kind for item in frame.view.objects))
            question = Question(kinds, min_area_fraction=MIN_AREA_FRACTION)
            encoded = predictor.encode(frame.view.rgb)
            depths_m = {"clean": frame.view.depth_m, "noisy": noisy_depth(frame.view.depth_m, rng)}
            truth = _truth(frame)
            for variant in variants.values():
                variant.look(asked, encoded, question, frame, depths_m, truth)
    return [figure for name, variant in variants.items() for figure in _figures(name, variant)]


def _truth(frame: SequenceFrame) -> list[TrueObject]:
    """Returns the objects of a frame; the masks of those that are too small for an answer are empty."""
    labels = frame.view.labels
    items = [
        TrueObject(item.kind, label, labels == label, frame.positions_m.get(label))
        for label, item in enumerate(frame.view.objects, start=1)
    ]
    least = MIN_AREA_FRACTION * labels.size
    return [item if item.mask.sum() >= least else replace(item, mask=np.zeros_like(item.mask)) for item in items]


def _covered(regions: Sequence[ObjectRegion], prompt: str, shape: tuple[int, int]) -> np.ndarray:
    """Returns the pixels that the regions of a prompt cover, (H, W) bool."""
    mask = np.zeros(shape, np.bool_)
    for region in regions:
        if region.prompt == prompt:
            mask |= region.mask
    return mask


def _figures(name: str, variant: _Variant) -> list[Figure]:
    clean, noisy = (meter.scores() for meter in variant.meters.values())
    values = {
        "found": (clean.matches / max(1, clean.object_frames), "share of objects and frames"),
        "switches_per_1000": (clean.switches_per_1000, "identity switches in 1,000 frames of an object"),
        "flicker": (clean.flicker, "share of pixels that change while nothing moves"),
        "mean_iou": (float(np.mean(variant.ious)), "IoU"),
        "position_error": (1000 * clean.position_error_m, "mm, median"),
        "position_error_noisy_depth": (1000 * noisy.position_error_m, "mm, median"),
    }
    return [Figure(f"sequences.{name}.{key}", float(f"{value:.4g}"), unit) for key, (value, unit) in values.items()]
