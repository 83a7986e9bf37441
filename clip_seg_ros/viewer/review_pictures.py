# SPDX-License-Identifier: Apache-2.0
"""Draws the images of a review, when somebody looks at them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from clip_seg_ros.annotation.decisions import Fate
from clip_seg_ros.annotation.results import AnnotatedFrame
from clip_seg_ros.annotation.review import Review, Shown
from clip_seg_ros.data.samples import DataError, read_rgb
from clip_seg_ros.pipeline.overlay import draw, prompt_colors
from clip_seg_ros.types import ObjectRegion, window_of
from clip_seg_ros.viewer.pictures import QUALITIES, encoded

_KEPT = 300
"""The number of drawn pictures that are kept; most are small."""
_LARGE_PX = 640
"""Pictures that are wider are kept by the browsers alone."""


def picture_of(out: Path, frame: AnnotatedFrame) -> np.ndarray:
    """Reads the picture of an image, (H, W, 3) uint8 RGB.

    Raises:
        DataError: It is missing, damaged or of another size, or lies outside of the run's folder.
    """
    path = (out / frame.picture).resolve()
    if not path.is_relative_to(out.resolve()):
        raise DataError(f"{frame.picture} is outside of {out}")
    rgb = read_rgb(path)
    if rgb.shape[:2] != tuple(frame.size):
        raise DataError(f"{path} is of another size than its masks")
    return rgb


class ReviewPictures:
    """JPEG pictures of a review's images, some of which are kept; any thread may ask.

    Args:
        review: The review.
    """

    def __init__(self, review: Review) -> None:
        self._review = review
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int, int, bool], bytes] = OrderedDict()

    def jpeg(self, image: int, width_px: int, with_masks: bool) -> bytes:
        """Returns an image, no wider than it is, with the masks that are not rejected.

        Raises:
            DataError: The picture cannot be read.
            ReviewError: There is no such image.
        """
        key = (image, self._review.version(image), width_px, with_masks)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        shown = self._review.shown(image)
        rgb = picture_of(self._review.out, shown.frame)
        jpeg = encoded(_drawn(shown, rgb, width_px, self.prompts if with_masks else None), QUALITIES[0])
        if width_px <= _LARGE_PX:
            with self._lock:
                self._kept[key] = jpeg
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return jpeg

    @property
    def prompts(self) -> tuple[str, ...]:
        """The phrases of the run, whose order fixes their colours."""
        return tuple(self._review.index.phrases)


def _drawn(shown: Shown, rgb: np.ndarray, width_px: int, prompts: tuple[str, ...] | None) -> np.ndarray:
    """Returns a picture at most as wide as asked, with masks unless ``prompts`` is ``None``."""
    height, width = rgb.shape[:2]
    scale = min(1.0, width_px / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if scale < 1:
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    if prompts is None:
        return rgb
    kept = [fate for fate in shown.fates if fate.state != "rejected"]
    regions = [_region(fate, shown.frame.size, size) for fate in kept]
    return draw(rgb, [region for region in regions if region is not None], prompts, numbers=False)


def _region(fate: Fate, full: tuple[int, int], size: tuple[int, int]) -> ObjectRegion | None:
    """Returns an object as a region of a picture of ``size`` (width, height); ``None`` if no pixel is left of it."""
    mask = fate.object.mask(full)
    if mask.shape[::-1] != size:
        mask = cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    if not mask.any():
        return None
    return ObjectRegion.of_mask(fate.object.prompt, 1, fate.object.score, mask)


def object_values(shown: Shown, prompts: tuple[str, ...]) -> list[dict[str, Any]]:
    """Returns the objects of an image as plain values, with the outlines of their masks in pixels."""
    colors = prompt_colors([*prompts, *(fate.object.prompt for fate in shown.fates)])
    listed = []
    for fate in shown.fates:
        each = fate.object
        doubt, words = shown.doubts[fate.number] if fate.number >= 0 else (0.0, ())
        listed.append(
            {
                "number": fate.number,
                "prompt": each.prompt,
                "track": each.track,
                "score": each.score,
                "margin": each.margin,
                "state": fate.state,
                "doubt": doubt,
                "words": list(words),
                "color": list(colors[each.prompt]),
                "box_px": list(each.box_px),
                "centroid_px": list(each.centroid_px),
                "outlines_px": _outlines(fate, shown.frame.size),
            }
        )
    return listed


def _outlines(fate: Fate, size: tuple[int, int]) -> list[Any]:
    inside = fate.object.mask(size)[window_of(fate.object.box_px)].astype(np.uint8)
    offset = fate.object.box_px[:2]
    contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1, offset=offset)
    return [contour[:, 0].tolist() for contour in contours]
