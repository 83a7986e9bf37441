# SPDX-License-Identifier: Apache-2.0
"""Fits the masks of objects to the edges of the image, with the guided filter (He, Sun and Tang, ECCV 2010).

A model decides at its own cells; those of CLIPSeg's published weights are 22 x 22 tokens, so that the border of a mask
is a smooth line near the object's. In a window around each pixel, the guided filter explains the mask p by the colours
I of the image as the line

    q = a . I + b,   a = (Sigma + epsilon U)^-1 (mean(I p) - mean(I) mean(p)),   b = mean(p) - a . mean(I)

(equations 14 to 16), where Sigma is the covariance of the colours. Where object and background differ in colour, q is
near 1 on one side of the edge and near 0 on the other, wherever the mask's border was. The coefficients are computed on
a reduced window, as the fast guided filter does (He and Sun, arXiv:1505.00996), and applied to the image's own pixels.

Colours alone would also move borders that are right, along shadows and textures. The model's probability therefore has
a say as well: a pixel is inside where

    q - 1/2 + PRIOR * d > 0

with the distance d of the probability from the threshold, -1/2 .. 1/2. Where the model is sure, nothing moves; where
its probabilities change slowly from one side to the other, the colours decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import cv2
import numpy as np

from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.types import ObjectRegion, window_of

RADIUS_SHARE = 1 / 30
"""The radius of the guided filter and the margin of the windows, as a share of the image's shorter side: 16 pixels at
640x480. The cells of CLIPSeg's published weights are 22 to 29 pixels large there."""
REDUCTION_SHARE = 1 / 120
"""The pixels of the image for each one of the reduced windows along either axis, as the same share: 4 at 640x480."""
EPSILON = 1e-4
"""The filter's regularisation, for colours in 0..1: edges below about its root, 2.5 grey levels, count as noise."""
PRIOR = 2.0
"""The weight of the model's probability against the colours. With 1, the masks of the simulated table fit better, but
those of real street scenes (CamVid, at 22 x 22 cells) hardly; with 2 both gain."""
STEPS = 3
"""How often the mask is filtered. Each time the border lies nearer to the edge, so that the two sides differ more."""
GAIN = 2.0
"""The slope with which the result of a step becomes the mask of the next one, 0..1."""
LEAST_SHARE = 0.5
"""A refined mask that has less than this share of the old mask's pixels in common with it is not used."""


def refined(regions: Sequence[ObjectRegion], maps: CellMaps, rgb: np.ndarray, threshold: float) -> list[ObjectRegion]:
    """Fits the masks of objects to the edges of the image.

    Ids, scores and prompts stay. Box, centroid and area become those of the refined mask, which is its largest
    connected part. A region whose refined mask has lost more than half of the old one stays as it is. Regions of one
    prompt that shared no pixel before share none afterwards; those of different prompts may.

    Args:
        regions: The regions of one image, without positions in metres.
        maps: The probabilities of their prompts.
        rgb: (H, W, 3) uint8, the image.
        threshold: The probability above which a pixel belongs to a prompt, 0..1.

    Returns:
        The regions in their order.

    Raises:
        ValueError: ``rgb`` is not of the size of ``maps``.
    """
    if rgb.shape != (*maps.size, 3) or rgb.dtype != np.uint8:
        raise ValueError(f"rgb must be {(*maps.size, 3)} uint8, as its probabilities, got {rgb.shape} {rgb.dtype}")
    fine: dict[str, np.ndarray] = {}
    for region in regions:
        if region.prompt not in fine:
            fine[region.prompt] = maps.geometry.fine(maps.part((region.prompt,)).values)[0]
    scores = [_scores(region, fine[region.prompt], rgb, threshold) for region in regions]
    for (one, of_one), (other, of_other) in combinations(zip(regions, scores, strict=True), 2):
        if one.prompt == other.prompt:
            _share_out(one, of_one, other, of_other)
    return [_with_mask(region, of_it.values > 0.0, of_it.box) for region, of_it in zip(regions, scores, strict=True)]


@dataclass(frozen=True)
class _Scores:
    """How well the pixels around a region suit it; those above 0 are inside."""

    values: np.ndarray
    """(h, w) float32."""
    box: tuple[int, int, int, int]
    """Where they lie in the image: x_min, y_min, x_max, y_max in pixels."""

    def part(self, box: tuple[int, int, int, int]) -> np.ndarray:
        """Returns a view of the values in a box that lies within this one."""
        left, top, right, bottom = box
        return self.values[top - self.box[1] : bottom - self.box[1], left - self.box[0] : right - self.box[0]]


def _share_out(one: ObjectRegion, of_one: _Scores, other: ObjectRegion, of_other: _Scores) -> None:
    """Gives each pixel to one of two regions at most: to that which had it, else to that with the higher score."""
    shared = _common(of_one.box, of_other.box)
    if shared is None:
        return
    for had_it, without in ((one, of_other), (other, of_one)):
        box = _common(had_it.box_px, without.box)
        if box is not None:
            left, top = had_it.box_px[:2]
            inside = had_it.inside[box[1] - top : box[3] - top, box[0] - left : box[2] - left]
            without.part(box)[inside] = -1.0
    first, second = of_one.part(shared), of_other.part(shared)
    is_first = first >= second
    first[~is_first] = -1.0
    second[is_first] = -1.0


def _common(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> tuple[int, int, int, int] | None:
    """Returns the box that two boxes have in common, or ``None``."""
    box = max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])
    return box if box[0] < box[2] and box[1] < box[3] else None


def _scores(region: ObjectRegion, values: np.ndarray, rgb: np.ndarray, threshold: float) -> _Scores:
    """Returns the scores around one region, with its prompt's probabilities (h, w) over the whole image."""
    height, width = region.image_size
    radius = max(1, round(RADIUS_SHARE * min(height, width)))
    left, top, right, bottom = region.box_px
    box = max(0, left - radius), max(0, top - radius), min(width, right + radius), min(height, bottom + radius)
    picture = rgb[window_of(box)]
    mask = np.zeros(picture.shape[:2], np.float32)
    mask[top - box[1] : bottom - box[1], left - box[0] : right - box[0]] = region.inside
    reduction = max(1.0, REDUCTION_SHARE * min(height, width))
    size = max(1, round(mask.shape[1] / reduction)), max(1, round(mask.shape[0] / reduction))
    colours = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) / 255.0
    share = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
    known = PRIOR * _sureness(_sampled(values, box, size, region.image_size), share > 0.5, threshold)
    line = _line(colours, share.astype(np.float64), known, max(1, round(radius / reduction)))
    # A fourth channel that is 255 everywhere takes the constant of the line.
    line = cv2.resize(line.astype(np.float32), mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
    terms = cv2.multiply(line, cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA), scale=1 / 255, dtype=cv2.CV_32F)
    return _Scores(cv2.transform(terms, np.ones((1, 4), np.float32)), box)


def _sampled(
    values: np.ndarray, box: tuple[int, int, int, int], size: tuple[int, int], image_size: tuple[int, int]
) -> np.ndarray:
    """Samples a map of the whole image (h, w) at the pixels of a reduced window of ``size`` (width, height)."""
    matrix = np.zeros((2, 3))
    for axis in (0, 1):  # x, y
        cells = values.shape[1 - axis] / image_size[1 - axis]
        step = (box[axis + 2] - box[axis]) / size[axis]
        matrix[axis, axis], matrix[axis, 2] = step * cells, (box[axis] + step / 2) * cells - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(values, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _sureness(probabilities: np.ndarray, inside: np.ndarray, threshold: float) -> np.ndarray:
    """Returns how far probabilities lie from the threshold, -1/2 (surely outside) .. 1/2 (surely inside).

    The sign is that of the mask. What lies above the threshold and yet outside the mask was cut away, or belongs to
    another object, and must not grow into this one.
    """
    side = np.where(probabilities > threshold, 1.0 - threshold, threshold)
    distance = np.abs(probabilities - threshold) / (2.0 * np.maximum(side, 1e-6))
    return np.where(inside, distance, -distance)


def _line(colours: np.ndarray, share: np.ndarray, known: np.ndarray, radius: int) -> np.ndarray:
    """Returns (h, w, 4): the coefficients a and the constant b of each pixel, plus ``known``, minus 1/2.

    Args:
        colours: (h, w, 3) float64, 0..1.
        share: (h, w) float64, the mask, 0..1.
        known: (h, w), what is added to the filter's result.
        radius: The filter's radius in these pixels.
    """

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)

    centre = mean(colours)
    inverse = _inverse(colours, centre, mean)
    for step in range(STEPS):
        middle = mean(share)
        together = mean(colours * share[..., None]) - centre * middle[..., None]
        slope = np.einsum("hwij,hwj->hwi", inverse, together)
        constant = middle - np.einsum("hwi,hwi->hw", slope, centre)
        # Equation 16: a pixel is in many windows, whose lines are averaged.
        slope, constant = mean(slope), mean(constant) + known - 0.5
        if step + 1 < STEPS:
            score = np.einsum("hwi,hwi->hw", slope, colours) + constant
            share = np.clip(GAIN * score + 0.5, 0.0, 1.0)
    return np.dstack([slope, constant])


def _inverse(colours: np.ndarray, centre: np.ndarray, mean: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Returns (h, w, 3, 3): the inverse of the colours' covariance plus epsilon.

    Colours of an image are nearly one line, whose covariance has a determinant as small as epsilon squared. In single
    precision it would drown in rounding.
    """
    products = np.dstack([colours * colours, colours[..., :2] * colours[..., 1:], colours[..., :1] * colours[..., 2:]])
    squares, mixed = mean(products[..., :3].copy()), mean(products[..., 3:].copy())
    rr, gg, bb = (squares - centre * centre + EPSILON).transpose(2, 0, 1)
    rg, gb, rb = (mixed - centre[..., [0, 1, 0]] * centre[..., [1, 2, 2]]).transpose(2, 0, 1)
    # The cofactors of a symmetric matrix of 3 x 3.
    a, b, c = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    d, e, f = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = rr * a + rg * b + rb * c
    return (np.stack([a, b, c, b, d, e, c, e, f], axis=-1) / determinant[..., None]).reshape(*a.shape, 3, 3)


def _with_mask(region: ObjectRegion, inside: np.ndarray, box: tuple[int, int, int, int]) -> ObjectRegion:
    """Returns the region with the largest connected part of ``inside`` (h, w), a mask in ``box``, if it is like it."""
    # OpenCV's statistics of all parts take ten times as long as to find the parts.
    count, labels = cv2.connectedComponents(inside.view(np.uint8), connectivity=8)
    if count < 2:
        return region
    part = inside if count == 2 else labels == 1 + int(np.bincount(labels.ravel())[1:].argmax())
    x, y = region.box_px[0] - box[0], region.box_px[1] - box[1]
    rows, columns = region.inside.shape
    kept = np.count_nonzero(part[y : y + rows, x : x + columns] & region.inside)
    if kept < LEAST_SHARE * region.area_px:
        return region
    left, top, width, height = cv2.boundingRect(part.view(np.uint8))
    cut = part[top : top + height, left : left + width].copy()
    left, top = box[0] + left, box[1] + top
    moments = cv2.moments(cut.view(np.uint8), binaryImage=True)
    area = moments["m00"]
    return replace(
        region,
        inside=cut,
        box_px=(left, top, left + width, top + height),
        centroid_px=(left + moments["m10"] / area, top + moments["m01"] / area),
        area_px=round(area),
    )
