# SPDX-License-Identifier: Apache-2.0
"""COCO's average precision of detected objects, computed by pycocotools."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MISSING = (
    "average precision is computed by pycocotools, which is not installed: type `pip install pycocotools`, or install "
    'this package with its part for detectors, `pip install "clip_seg_ros[coco]"`'
)
_NONE = -1.0
"""What pycocotools gives for a precision that has no objects."""


class PycocotoolsMissing(ValueError):
    """pycocotools is not installed; the message says what to do."""


@dataclass(frozen=True)
class PlacedObject:
    """A true or a found object of an image."""

    label: int
    """Index of its class."""
    box: tuple[float, float, float, float]
    """(x_min, y_min, x_max, y_max) in pixels."""
    mask: np.ndarray | None
    """(H, W) bool; ``None`` if only boxes are compared."""
    score: float = 1.0
    """How sure the detector is, 0..1."""
    area_px: float | None = None
    """True objects: the area by which they count as small, medium or large."""
    crowd: bool = False
    """True objects: a region in which no answer is wrong."""


@dataclass(frozen=True)
class PrecisionScores:
    """Average precisions, 0..1; NaN where there is no true object."""

    ap: float
    """The mean over the IoU thresholds 0.5, 0.55 .. 0.95."""
    ap50: float
    """At IoU 0.5."""
    ap75: float
    """At IoU 0.75."""
    ap_small: float
    """``ap`` of objects below 32 x 32 pixels."""
    ap_medium: float
    """``ap`` of objects from 32 x 32 to 96 x 96 pixels."""
    ap_large: float
    """``ap`` of larger objects."""
    class_ap50: np.ndarray
    """(C,) float64, at IoU 0.5 for each class."""


@dataclass
class AveragePrecision:
    """Collects the objects of images, of C classes.

    Args:
        class_count: C.
        kind: What is compared: "mask" or "box".
    """

    class_count: int
    kind: str
    _images: list[dict[str, Any]] = field(default_factory=list, init=False)
    _true: list[dict[str, Any]] = field(default_factory=list, init=False)
    _found: list[dict[str, Any]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.kind not in ("mask", "box"):
            raise ValueError(f'kind must be "mask" or "box", got "{self.kind}"')

    def add(self, size: tuple[int, int], true: Sequence[PlacedObject], found: Sequence[PlacedObject]) -> None:
        """Adds one image.

        Args:
            size: (H, W) of the image.
            true: Its objects.
            found: The detector's answers; at most 100 of them count, the best.

        Raises:
            PycocotoolsMissing: pycocotools is not installed.
        """
        number = len(self._images) + 1
        self._images.append({"id": number, "height": size[0], "width": size[1]})
        for item in true:
            entry = self._entry(number, item)
            area = item.area_px if item.area_px is not None else entry["bbox"][2] * entry["bbox"][3]
            self._true.append({**entry, "id": len(self._true) + 1, "area": float(area), "iscrowd": int(item.crowd)})
        for item in found:
            entry = {**self._entry(number, item), "score": item.score}
            if self.kind == "mask":
                del entry["bbox"]  # pycocotools would take the box's area for the mask's
            self._found.append(entry)

    def scores(self) -> PrecisionScores:
        """Returns the precisions over all images. Raises PycocotoolsMissing."""
        evaluated = self._evaluated()
        if evaluated is None:
            nothing = 0.0 if any(not item["iscrowd"] for item in self._true) else np.nan
            return PrecisionScores(
                nothing, nothing, nothing, nothing, nothing, nothing, np.full(self.class_count, nothing)
            )
        ap, ap50, ap75, small, medium, large = (_or_nan(value) for value in evaluated.stats[:6])
        # (IoU thresholds, recalls, classes, areas, numbers of answers)
        at_half = evaluated.eval["precision"][0, :, :, 0, -1]
        by_class = [_or_nan(column[column > _NONE].mean() if (column > _NONE).any() else _NONE) for column in at_half.T]
        return PrecisionScores(ap, ap50, ap75, small, medium, large, np.array(by_class))

    def _entry(self, image: int, item: PlacedObject) -> dict[str, Any]:
        x_min, y_min, x_max, y_max = item.box
        entry: dict[str, Any] = {
            "image_id": image,
            "category_id": item.label + 1,
            "bbox": [float(x_min), float(y_min), float(x_max - x_min), float(y_max - y_min)],
        }
        if self.kind == "mask":
            if item.mask is None:
                raise ValueError("masks are compared, and an object has none")
            entry["segmentation"] = _tools("mask").encode(np.asfortranarray(item.mask, np.uint8))
        return entry

    def _evaluated(self) -> Any:
        """Returns pycocotools' evaluation, or ``None`` if nothing was found."""
        if not self._found:
            return None
        # It prints what it does.
        with contextlib.redirect_stdout(io.StringIO()):
            truth = _tools("coco").COCO()
            truth.dataset = {
                "images": self._images,
                "annotations": self._true,
                "categories": [{"id": number + 1, "name": str(number)} for number in range(self.class_count)],
            }
            truth.createIndex()
            kind = "segm" if self.kind == "mask" else "bbox"
            evaluation = _tools("cocoeval").COCOeval(truth, truth.loadRes(self._found), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation


def _or_nan(value: float) -> float:
    return float("nan") if value == _NONE else float(value)


def _tools(part: str) -> Any:
    """Imports a part of pycocotools."""
    try:
        return importlib.import_module(f"pycocotools.{part}")
    except ImportError as error:
        raise PycocotoolsMissing(MISSING) from error
