# SPDX-License-Identifier: Apache-2.0
"""The mask of the thing at a point of an image or in a box, from the model's own features and the image's colours.

    point -> likeness of every place's features to those at the point -> several first guesses  -> cut by colours -.
    box   -> inside perhaps, outside surely not                                                  -> cut by colours -+
    one mask <- sharper at the image's own pixels <- the best by the model's own answer to an example image <------'

The features say how far a thing goes, but only at places of many pixels, and at which likeness it ends differs from
thing to thing; colours say where it ends, if they know about what (``cutting``). Therefore several first guesses are
cut out, and a model that takes example images, as CLIPSeg does, judges: shown one of the masks as an example, it
answers where such a thing is, and the mask that has most in common with this answer is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from clip_seg_ros.pipeline.cutting import RIM_PX, Box, cut_around, cut_in, enlarged, part_at, sharpened
from clip_seg_ros.pipeline.examples import embedded_example
from clip_seg_ros.pipeline.letterbox import letterbox_affine
from clip_seg_ros.pipeline.predictor import EncodedImage, Predictor
from clip_seg_ros.pipeline.preprocess import Preprocessor
from clip_seg_ros.pipeline.sliding import merge_windows
from clip_seg_ros.types import ObjectRegion

REDUCED_PX = 240
"""The shorter side of the picture in which a thing is looked for; a larger one is reduced."""
LEVELS = (0.45, 0.2, 0.3, 0.6)
"""The likenesses above which places belong to a first guess. The first one is taken where no model judges."""
OF_PEAK = 0.85
"""A first guess has all places of this share of the likeness at the point itself, where that is below a level."""
DROP = 0.3
"""Places whose likeness is this much below that of a first guess are surely something else."""
BOX_PADS = (0.3, 0.6)
"""How far around a box the surroundings are looked at, as shares of its sides. The first one is taken where no model
judges."""
EXAMPLE_LEVEL, EXAMPLE_NOT = 0.4, 0.1
"""The probabilities above which the model's answer to an example is a first guess, and below which it surely is not."""


@dataclass(frozen=True)
class Guesses:
    """The masks that are tried for one thing, in a reduced picture."""

    cuts: tuple[np.ndarray, ...]
    """Each (h, w) bool; the first one is taken where no model judges."""
    answer: np.ndarray | None
    """(h, w) float32, where the model finds the thing of the first cut, 0..1; ``None`` if it takes no examples."""
    best: np.ndarray
    """(h, w) bool, the mask that is taken."""
    sureness: np.ndarray
    """(h, w) float32, 0..1, whose mean over the mask is the score."""
    rim_px: int
    """The distance in pixels of the image by which the border of the mask may be wrong."""


def thing_at(
    predictor: Predictor, encoded: EncodedImage, rgb: np.ndarray, point_px: tuple[float, float], name: str = "thing"
) -> ObjectRegion:
    """Finds the thing at a point.

    Args:
        predictor: Predictor of any model that keeps features of places; one that takes examples does best.
        encoded: The image, from ``predictor.encode``.
        rgb: (H, W, 3) uint8, the image.
        point_px: (x, y) in pixels.
        name: The region's prompt.

    Returns:
        The region, whose id is 1 and whose score says how well its mask fits what the model says, 0..1.

    Raises:
        ValueError: The point is outside of the image, the model keeps no features of places, or nothing is found.
    """
    return _region(guesses_at(predictor, encoded, rgb, point_px), rgb, name)


def thing_in(
    predictor: Predictor, encoded: EncodedImage, rgb: np.ndarray, box_px: Box, name: str = "thing"
) -> ObjectRegion:
    """Finds the thing in a box, which it fills up to about a tenth of each side.

    Args:
        predictor: Predictor of any model.
        encoded: The image, from ``predictor.encode``.
        rgb: (H, W, 3) uint8, the image.
        box_px: The box.
        name: The region's prompt.

    Returns:
        The region, as from ``thing_at``.

    Raises:
        ValueError: The box is empty, too small or outside of the image, or nothing is found in it.
    """
    return _region(guesses_in(predictor, encoded, rgb, box_px), rgb, name)


def require_point(point_px: tuple[float, float], size: tuple[int, int]) -> None:
    """Raises ValueError if a point lies outside of an image of ``size`` (H, W)."""
    (x, y), (height, width) = point_px, size
    if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
        raise ValueError(f"the point ({x:g}, {y:g}) is outside of the picture of {width}x{height}")


def require_box(box_px: Box, size: tuple[int, int]) -> None:
    """Raises ValueError if a box is empty or reaches out of an image of ``size`` (H, W)."""
    (x_min, y_min, x_max, y_max), (height, width) = box_px, size
    if x_min >= x_max or y_min >= y_max:
        raise ValueError(f"the box is empty: {x_max - x_min}x{y_max - y_min}")
    if x_min < 0 or y_min < 0 or x_max > width or y_max > height:
        raise ValueError(f"the box {tuple(box_px)} reaches out of the picture of {width}x{height}")


def likeness(encoded: EncodedImage, point_px: tuple[float, float]) -> np.ndarray:
    """Compares the features of all places with those at a point.

    Args:
        encoded: The image.
        point_px: (x, y) in pixels of the image.

    Returns:
        (H, W) float32, -1..1: cosines of the features less their mean over the image. What all places have in common
        would make them all alike.

    Raises:
        ValueError: The model keeps no features of places.
    """
    maps = encoded.features.places()
    if maps is None:
        raise ValueError("this model keeps no features of single places: use a CLIPSeg, CRIS, DenseCLIP or MaskCLIP")
    maps = maps.float()
    maps = maps - maps.mean(dim=(0, 2, 3), keepdim=True)
    maps = torch.nn.functional.normalize(maps, dim=1)
    window, row, column = _place_of(encoded, point_px, tuple(maps.shape[2:]))
    alike = torch.einsum("c,bchw->bhw", maps[window, :, row, column], maps)[:, None]
    if encoded.windows is not None:
        alike = merge_windows(alike, encoded.windows, encoded.geometry.model_size)[None]
    # A letterbox is restored within 0..1.
    return 2 * encoded.geometry.restore((alike[0] + 1).cpu().numpy() / 2)[0] - 1


def guesses_at(predictor: Predictor, encoded: EncodedImage, rgb: np.ndarray, point_px: tuple[float, float]) -> Guesses:
    """Tries several masks for the thing at a point; see ``thing_at``."""
    require_point(point_px, rgb.shape[:2])
    picture, scale = _reduced(rgb)
    x, y = (
        int(np.clip((at + 0.5) * scale, 0, side - 1)) for at, side in zip(point_px, picture.shape[1::-1], strict=True)
    )
    point = x, y
    alike = cv2.resize(likeness(encoded, point_px), picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    peak = OF_PEAK * float(alike[point[1], point[0]])
    levels = [min(level, peak) for level in LEVELS]
    cuts = [cut_around(picture, part_at(alike > level, point), alike < level - DROP, point) for level in levels]
    sureness = alike.clip(0.0, 1.0)
    rim_px = max(1, round(RIM_PX / scale))
    if not predictor.spec.takes_examples:
        return Guesses(tuple(cuts), None, cuts[0], sureness, rim_px)
    answer = _answer(predictor, encoded, rgb, cuts[0])
    cuts += _cut_by_answer(picture, answer, point)
    return Guesses(tuple(cuts), answer, _best(cuts, answer), answer, rim_px)


def guesses_in(predictor: Predictor, encoded: EncodedImage, rgb: np.ndarray, box_px: Box) -> Guesses:
    """Tries several masks for the thing in a box; see ``thing_in``."""
    require_box(box_px, rgb.shape[:2])
    cuts = [cut for pad in BOX_PADS if (cut := cut_in(rgb, box_px, pad)).any()]
    if not cuts:
        raise ValueError(f"nothing stands out in the box {tuple(box_px)}: draw it a little around the thing")
    sureness = np.ones(rgb.shape[:2], np.float32)
    if not predictor.spec.takes_examples:
        return Guesses(tuple(cuts), None, cuts[0], sureness, 1)
    answer = _answer(predictor, encoded, rgb, cuts[0])
    return Guesses(tuple(cuts), answer, _best(cuts, answer), answer, 1)


def _reduced(rgb: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the picture with a shorter side of at most ``REDUCED_PX``, and its size as a share of the image's."""
    scale = min(1.0, REDUCED_PX / min(rgb.shape[:2]))
    if scale == 1.0:
        return rgb, scale
    size = max(1, round(scale * rgb.shape[1])), max(1, round(scale * rgb.shape[0]))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), scale


def _answer(predictor: Predictor, encoded: EncodedImage, rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns where the model finds the thing of a mask (h, w) that shows it, (h, w) float32, 0..1."""
    engine = predictor.engine
    with torch.inference_mode():
        preprocess = Preprocessor(engine.spec.input, engine.device)
        example = embedded_example(engine, preprocess, rgb, enlarged(mask, rgb.shape[:2]))
        values = engine.probabilities(engine.decode(encoded.features, example))[0].cpu().numpy()
    return cv2.resize(encoded.geometry.restore(values)[0], mask.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _cut_by_answer(picture: np.ndarray, answer: np.ndarray, point: tuple[int, int]) -> list[np.ndarray]:
    """Returns the cut that the model's answer suggests, in a list; an empty one if it denies the point."""
    guess = part_at(answer > EXAMPLE_LEVEL, point)
    return [cut_around(picture, guess, answer < EXAMPLE_NOT, point)] if guess.any() else []


def _best(cuts: Sequence[np.ndarray], answer: np.ndarray) -> np.ndarray:
    """Returns the mask that has most in common with the model's answer."""
    common = [np.minimum(answer, cut).sum() / np.maximum(answer, cut).sum() for cut in cuts]
    return cuts[int(np.argmax(common))]


def _region(guesses: Guesses, rgb: np.ndarray, name: str) -> ObjectRegion:
    score = float(guesses.sureness[guesses.best].mean())
    mask = sharpened(rgb, enlarged(guesses.best, rgb.shape[:2]), guesses.rim_px)
    return ObjectRegion.of_mask(name, 1, score, mask)


def _place_of(encoded: EncodedImage, point_px: tuple[float, float], grid: tuple[int, int]) -> tuple[int, int, int]:
    """Returns the window and the (row, column) of its ``grid`` of places in which a point of the image lies."""
    geometry = encoded.geometry
    if geometry.letterbox:
        side = geometry.model_size[0]
        affine = letterbox_affine(geometry.source_size, side)
        # The places of a letterbox span the square from the first pixel's middle to the last one's.
        at = [(affine[axis, axis] * point_px[axis] + affine[axis, 2]) / (side - 1) for axis in (1, 0)]
        row, column = (round(share * (places - 1)) for share, places in zip(at, grid, strict=True))
        return 0, row, column
    sizes = zip(geometry.model_size, geometry.source_size, point_px[::-1], strict=True)
    y, x = ((at + 0.5) * model / source for model, source, at in sizes)
    windows = encoded.windows or ((0, 0, *geometry.model_size),)
    # Of several windows, the one in whose middle the point lies sees most around it.
    off = [max(abs(2 * y - top - bottom), abs(2 * x - left - right)) for top, left, bottom, right in windows]
    window = int(np.argmin(off))
    top, left, bottom, right = windows[window]
    row, column = int((y - top) / (bottom - top) * grid[0]), int((x - left) / (right - left) * grid[1])
    return window, min(max(row, 0), grid[0] - 1), min(max(column, 0), grid[1] - 1)
