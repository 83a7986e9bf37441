# SPDX-License-Identifier: Apache-2.0
"""One object that was seen, as ``recollection.ObjectMemory`` keeps it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from clip_seg_ros.pipeline.stream.tracking import HISTOGRAM_BINS
from clip_seg_ros.types import ObjectRegion, OrientedBox

LOOKS_BINS = math.prod(HISTOGRAM_BINS)
VIEW_PX = 160
"""The longest side of a kept view in pixels; larger ones are made smaller."""
_BORDER_SHARE = 0.15
"""How much of the surroundings a view shows on each side, as a share of the object's box."""
_JPEG_QUALITY = 85
MISS_WEIGHT = 2
"""The number of sightings that one miss outweighs: a thing in plain view is rarely missed, but a wrong name is seldom
given twice."""
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


@dataclass(frozen=True)
class BestView:
    """The picture in which an object was seen best so far."""

    jpeg: bytes
    """The object and a little around it, at most ``VIEW_PX`` pixels a side."""
    mask_png: bytes
    """The object's mask in this picture, 255 inside."""
    worth: float
    """The larger it is, the better the view: the object's score times its area as a share of the image."""

    def rgb(self) -> np.ndarray:
        """Returns the picture, (h, w, 3) uint8. Raises ValueError if the bytes are no picture."""
        return cv2.cvtColor(_decoded(self.jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def mask(self) -> np.ndarray:
        """Returns the mask, (h, w) bool. Raises ValueError if the bytes are no picture."""
        return _decoded(self.mask_png, cv2.IMREAD_GRAYSCALE) > 127


@dataclass(frozen=True)
class RememberedObject:
    """An object that was seen, in a frame that does not move with the camera. Times are stamps of images."""

    id: int
    """Greater than 0; it stays while the object is remembered, and no other object ever gets it."""
    phrase: str
    """The phrase that found it; of several that fit, the one that says most ("red cup" rather than "cup")."""
    position_m: tuple[float, float, float]
    """The middle of the surface that was visible at the last sighting, as of ``ObjectRegion.position_m``."""
    box_m: OrientedBox | None
    """The box around that surface, in the fixed frame."""
    first_ns: int
    last_ns: int
    sightings: int
    """The number of images in which it was found."""
    whole: int
    """The number of those in which it did not reach the border of the image: what is cut off gets wrong names."""
    missed: int
    """The number of images in which its place was in plain view, with something there, and it was asked for in vain."""
    score: float
    """The score of the last sighting, 0..1."""
    surface_m: np.ndarray
    """(N, 3) float32: points of the surface that was visible at the last sighting, in the fixed frame; N may be 0."""
    looks: np.ndarray
    """(B,) float32: its colours, as ``tracking.color_histogram`` gives them."""
    view: BestView
    features: np.ndarray | None = None
    """(D,) float32: what the caller gave as its features at the last sighting; ``None`` for nothing."""

    def __post_init__(self) -> None:
        if self.id < 1 or not self.phrase or self.missed < 0 or not 0 <= self.whole <= self.sightings > 0:
            raise ValueError(f"object {self.id} needs an id, a phrase and counts that fit each other")
        if not all(map(math.isfinite, (*self.position_m, self.score, self.view.worth))):
            raise ValueError(f"position and score of object {self.id} must be finite")
        if self.surface_m.ndim != 2 or self.surface_m.shape[1] != 3 or self.looks.shape != (LOOKS_BINS,):
            raise ValueError(
                f"object {self.id} needs points (N, 3) and {LOOKS_BINS} colours, got {self.surface_m.shape} and "
                f"{self.looks.shape}"
            )

    @property
    def size_m(self) -> float:
        """The longest side of the visible part; 0 if it is not known."""
        return self.box_m.size_m[0] if self.box_m is not None else 0.0

    @property
    def is_doubtful(self) -> bool:
        """Whether it was missed so often that it was probably something else, to which the model gave a wrong name."""
        return self.missed > 0 and MISS_WEIGHT * self.missed >= self.whole

    def age_s(self, now_ns: int) -> float:
        """Returns the seconds since the last sighting; 0 if the clock was set back since."""
        return max(0.0, (now_ns - self.last_ns) * 1e-9)

    def sentence(self, now_ns: int, viewer_m: tuple[float, float, float] | None = None) -> str:
        """Says in plain words where it is and when it was last seen.

        Args:
            now_ns: The time to count from, on the clock of the images.
            viewer_m: Where the camera or the robot is, in the fixed frame; without it, the position is said.

        Examples:
            "red cup: 2.1 m away, last seen 14 s ago"
        """
        if viewer_m is None:
            x, y, z = self.position_m
            place = f"at ({x:.2f}, {y:.2f}, {z:.2f}) m"
        else:
            place = f"{_length(math.dist(viewer_m, self.position_m))} away"
        return f"{self.phrase}: {place}, last seen {_ago(self.age_s(now_ns))}"


def best_view(region: ObjectRegion, rgb: np.ndarray) -> BestView:
    """Cuts the view of a region out of its image, (H, W, 3) uint8."""
    x_min, y_min, x_max, y_max = region.box_px
    border = round(_BORDER_SHARE * max(x_max - x_min, y_max - y_min))
    left, top = max(0, x_min - border), max(0, y_min - border)
    cut = rgb[top : y_max + border, left : x_max + border]
    mask = np.zeros(cut.shape[:2], np.uint8)
    mask[y_min - top : y_max - top, x_min - left : x_max - left] = np.where(region.inside, 255, 0)
    scale = VIEW_PX / max(cut.shape[:2])
    if scale < 1:
        size = (max(1, round(cut.shape[1] * scale)), max(1, round(cut.shape[0] * scale)))
        cut, mask = (cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (cut, mask))
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(cut, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    _, png = cv2.imencode(".png", mask)
    return BestView(jpeg.tobytes(), png.tobytes(), worth_of(region))


def worth_of(region: ObjectRegion) -> float:
    """Returns how good a view of its object a region is, as ``BestView.worth``."""
    height, width = region.image_size
    return region.score * region.area_px / (height * width)


def _decoded(content: bytes, flags: int) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    if picture is None:
        raise ValueError("the bytes are no picture")
    return picture


def _length(metres: float) -> str:
    return f"{100 * metres:.0f} cm" if metres < 0.995 else f"{metres:.1f} m"


def _ago(seconds: float) -> str:
    if seconds < 1:
        return "just now"
    for least, unit in ((_DAY_S, "days"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if seconds >= 2 * least:
            return f"{seconds / least:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
