# SPDX-License-Identifier: Apache-2.0
"""Draws views as JPEG pictures of a few sizes, once for all who look at the same."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from clip_seg_ros.pipeline.overlay import draw
from clip_seg_ros.types import ObjectRegion
from clip_seg_ros.viewer.views import Thing, View

Layer = Literal["overlay", "plain", "confidence"]
LAYERS: tuple[Layer, ...] = ("overlay", "plain", "confidence")
WIDTHS_PX = (320, 480, 640, 960, 1280, 1920)
"""The widths of pictures; viewers of about the same size share one."""
QUALITIES = (80, 60)
"""JPEG qualities: usual, and for slow links."""
_GREY = (150, 150, 150)
_CONFIDENCE_SHARE = 0.65
"""How much of a picture of the confidence is colour; the rest is the image."""


@dataclass(frozen=True)
class Form:
    """How a view is drawn."""

    layer: Layer = "overlay"
    width_px: int = 640
    quality: int = QUALITIES[0]


def width_for(wanted_px: float) -> int:
    """Returns the smallest of ``WIDTHS_PX`` that fills so many pixels of a screen, or the largest."""
    return next((width for width in WIDTHS_PX if width >= wanted_px), WIDTHS_PX[-1])


class Pictures:
    """JPEG pictures of views. Whoever asks for one that another thread is drawing waits for that one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By the identity of the view, which is kept with its picture: a paused source may answer an image twice.
        self._pictures: dict[tuple[int, Form], tuple[View, Future[bytes]]] = {}

    def jpeg(self, view: View, form: Form) -> bytes:
        """Returns a view as JPEG, no wider than its image."""
        with self._lock:
            is_mine = (id(view), form) not in self._pictures
            if is_mine:
                self._forget_others(view)
            _, future = self._pictures.setdefault((id(view), form), (view, Future()))
        if is_mine:
            try:
                future.set_result(encoded(drawn(view, form.layer, form.width_px), form.quality))
            except Exception as error:
                future.set_exception(error)
        return future.result()

    def _forget_others(self, view: View) -> None:
        """Keeps of each camera the pictures of one view: views are large."""
        others = [
            key for key, (other, _) in self._pictures.items() if other.camera == view.camera and other is not view
        ]
        for key in others:
            del self._pictures[key]

    def forget(self) -> None:
        """Drops all pictures, when nobody looks any more."""
        with self._lock:
            self._pictures.clear()


def encoded(rgb: np.ndarray, quality: int) -> bytes:
    """Returns an (H, W, 3) uint8 image as JPEG of a quality of 0..100."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()


def drawn(view: View, layer: Layer, width_px: int | None = None) -> np.ndarray:
    """Returns a view as an (h, w, 3) uint8 RGB picture.

    Args:
        view: The view.
        layer: "plain" is the image as it is; "overlay" shows the things in it; "confidence" the probabilities, where
            the view has them, from dark blue (0) to yellow (1).
        width_px: Width of the picture; wider than the image, or ``None``: that of the image.
    """
    height, width = view.rgb.shape[:2]
    scale = 1.0 if width_px is None else min(1.0, width_px / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # Drawing in the small picture costs a fraction, and keeps letters and lines sharp.
    rgb = view.rgb if scale == 1.0 else cv2.resize(view.rgb, size, interpolation=cv2.INTER_AREA)
    if layer == "plain":
        return rgb
    if layer == "confidence":
        return rgb if view.confidence is None else _with_confidence(rgb, view.confidence)
    picture = draw(rgb, _regions(view, size), view.prompts, numbers=True)
    for anchor in (thing for thing in view.things if thing.id == 0):
        x_min, y_min, x_max, y_max = (round(value * scale) for value in anchor.box_px)
        cv2.rectangle(picture, (x_min, y_min), (x_max - 1, y_max - 1), _GREY, 1, cv2.LINE_AA)
    return picture


def _with_confidence(rgb: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    small = cv2.resize(confidence, rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    levels = np.clip(small * 255.0, 0, 255).astype(np.uint8)
    colors = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_CIVIDIS), cv2.COLOR_BGR2RGB)
    return cv2.addWeighted(colors, _CONFIDENCE_SHARE, rgb, 1 - _CONFIDENCE_SHARE, 0)


def _regions(view: View, size: tuple[int, int]) -> Sequence[ObjectRegion]:
    """Returns the things as regions of a picture of ``size`` (width, height)."""
    if view.labels is None:
        return []
    labels = view.labels
    if labels.shape[1::-1] != size:
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    scale = np.array(size * 2, float) / (view.rgb.shape[1::-1] * 2)
    found = (_region(thing, labels, scale) for thing in view.things if thing.id > 0)
    return [region for region in found if region is not None]


def _region(thing: Thing, labels: np.ndarray, scale: np.ndarray) -> ObjectRegion | None:
    """Returns a thing as a region of (h, w) ``labels``, which are ``scale`` times as large as the image; ``None`` if no
    pixel is left of it."""
    height, width = labels.shape
    x_min, y_min = np.floor(thing.box_px[:2] * scale[:2]).astype(int)
    x_max, y_max = np.minimum(np.ceil(thing.box_px[2:] * scale[2:]).astype(int), (width, height))
    inside = labels[y_min:y_max, x_min:x_max] == thing.id
    if not inside.any():
        return None
    box = (int(x_min), int(y_min), int(x_max), int(y_max))
    centroid = (float(thing.centroid_px[0] * scale[0]), float(thing.centroid_px[1] * scale[1]))
    count = int(np.count_nonzero(inside))
    return ObjectRegion(thing.prompt, thing.id, thing.score, inside, box, centroid, count, (height, width))
