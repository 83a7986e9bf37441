# SPDX-License-Identifier: Apache-2.0
"""Makes batches from rendered scenes: object crops for the CLIP towers, whole scenes with phrases for the decoder.

Every batch depends only on (seed, stage, step), so that an interrupted run resumes exactly where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from clip_seg_ros.data.expressions import ground_positions, sample_expression, seen_objects
from clip_seg_ros.data.samples import IGNORED
from clip_seg_ros.data.tabletop import SEMANTIC_CLASSES, TabletopScenes, class_map
from clip_seg_ros.models.clipseg.visual_prompts import MEAN_RGB, fade_background
from clip_seg_ros.sim.scene import COLORS, KINDS, Pair
from clip_seg_ros.sim.surfaces import SURFACES
from clip_seg_ros.training import distributed
from clip_seg_ros.training.pocket.phrases import Query, sample_query
from clip_seg_ros.training.pocket.scene_views import augment, retextured, zoom
from clip_seg_ros.training.recipes.batch import ClassBatch, ExpressionBatch

_MIN_CROP_AREA_PX = 80
_MIN_ASK_SHARE = 0.001
"""The least share of the image that an object must cover for phrases to name it."""
_MIN_RELATED_SHARE = 0.002
"""The least share of the image that an object must cover to take part in relations."""
_RECOLORED_SHARE = 0.3
_EMPHASISED_SHARE = 0.3
_RETEXTURED_SHARE = 0.5
TABLE = SEMANTIC_CLASSES.index("table")
"""The class of the table's pixels."""


@dataclass(frozen=True)
class CropIndex:
    """The N objects that are large enough to crop, one row each."""

    scene: np.ndarray
    label: np.ndarray
    """The values in the scenes' label images, (N,)."""
    box: np.ndarray
    """The bounding boxes, (N, 4) x, y, width, height in pixels."""
    color: np.ndarray
    """The indices into COLORS, (N,)."""
    kind: np.ndarray
    """The indices into KINDS, (N,)."""


@dataclass(frozen=True)
class CropBatch:
    pixels: torch.Tensor
    """The crops, (B, 3, s, s) float32 in 0..1."""
    color: torch.Tensor
    """The indices into COLORS, (B,) int64; -1 for recoloured crops."""
    kind: torch.Tensor
    """The indices into KINDS, (B,) int64."""

    def to(self, device: torch.device) -> CropBatch:
        """Returns the batch on ``device``."""
        return replace(self, pixels=self.pixels.to(device), color=self.color.to(device), kind=self.kind.to(device))

    def share(self) -> CropBatch:
        """Returns this process's part of the batch."""
        return CropBatch(*(distributed.share(part) for part in (self.pixels, self.color, self.kind)))


@dataclass(frozen=True)
class SceneBatch:
    pixels: torch.Tensor
    """The images, (B, 3, H, W) float32 in 0..1."""
    color_map: torch.Tensor
    """The indices into COLORS, (B, H, W) int64; -1 = no object, or recoloured."""
    class_map: torch.Tensor
    """The indices into SEMANTIC_CLASSES, whose first are KINDS, (B, H, W) int64; -1 = beyond the floor."""
    queries: tuple[tuple[Query, ...], ...]
    """The P phrases of each scene."""
    masks: torch.Tensor
    """The masks of the phrases' objects, (B, P, H, W) float32, 0 or 1."""

    def to(self, device: torch.device) -> SceneBatch:
        """Returns the batch on ``device``."""
        moved = {name: getattr(self, name).to(device) for name in ("pixels", "color_map", "class_map", "masks")}
        return replace(self, **moved)

    def share(self) -> SceneBatch:
        """Returns this process's part of the batch."""
        parts = (self.pixels, self.color_map, self.class_map, self.queries, self.masks)
        return SceneBatch(*(distributed.share(part) for part in parts))


def index_crops(scenes: TabletopScenes) -> CropIndex:
    """Lists every object that covers at least ``_MIN_CROP_AREA_PX`` pixels, with its bounding box."""
    rows = []
    for n, (labels, objects) in enumerate(zip(scenes.labels, scenes.objects, strict=True)):
        areas = np.bincount(labels.ravel(), minlength=len(objects) + 1)
        for index, (color, kind) in enumerate(objects, start=1):
            if areas[index] >= _MIN_CROP_AREA_PX:
                box = cv2.boundingRect((labels == index).view(np.uint8))
                rows.append((n, index, *box, COLORS.index(color), KINDS.index(kind)))
    table = np.array(rows, dtype=np.int64)
    return CropIndex(table[:, 0], table[:, 1], table[:, 2:6], table[:, 6], table[:, 7])


def example_batch(
    scenes: TabletopScenes, index: CropIndex, rng: np.random.Generator, pairs: Sequence[Pair], side_px: int
) -> torch.Tensor:
    """Draws an example image for each (colour, kind): a crop from a scene with the pair, its background faded.

    Returns:
        The images with changed light and noise, (N, 3, side_px, side_px) float32 in 0..1.

    Raises:
        ValueError: One of the pairs is in no scene.
    """
    examples = np.empty((len(pairs), side_px, side_px, 3), np.uint8)
    for row, (color, kind) in enumerate(pairs):
        fits = np.flatnonzero((index.color == COLORS.index(color)) & (index.kind == KINDS.index(kind)))
        if not len(fits):
            raise ValueError(f"no scene shows a {color} {kind} large enough for an example")
        pick = fits[rng.integers(len(fits))]
        n, (x, y, w, h) = index.scene[pick], index.box[pick]
        faded = fade_background(scenes.rgb[n], scenes.labels[n] == index.label[pick])
        side = max(w, h) * rng.uniform(1.1, 1.3)
        scale = side_px / side
        corner = np.array([x + w / 2, y + h / 2]) - side / 2
        warp = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])
        cv2.warpAffine(
            faded,
            warp,
            (side_px, side_px),
            dst=examples[row],
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=MEAN_RGB.tolist(),
        )
    return augment(examples, np.zeros(len(pairs), bool), rng)


def crop_batch(
    scenes: TabletopScenes, index: CropIndex, rng: np.random.Generator, size: int, side_px: int
) -> CropBatch:
    """Crops ``size`` objects from their scenes in windows of 1 to 2.2 times their bounding boxes.

    Three in ten are recoloured; in three in ten, the background is faded as in example images (CLIPSeg, table 1).
    """
    picks = rng.integers(len(index.scene), size=size)
    pixels = np.empty((size, side_px, side_px, 3), np.uint8)
    for row, pick in enumerate(picks):
        x, y, w, h = index.box[pick]
        side = max(w, h) * rng.uniform(1.0, 2.2)
        center = np.array([x + w / 2, y + h / 2]) + rng.uniform(-0.12, 0.12, 2) * side
        scale = side_px / side
        warp = np.array([[scale, 0, side_px / 2 - scale * center[0]], [0, scale, side_px / 2 - scale * center[1]]])
        if rng.random() < 0.5:
            warp[0] = [-warp[0, 0], 0, side_px - 1 - warp[0, 2]]
        cv2.warpAffine(
            scenes.rgb[index.scene[pick]],
            warp,
            (side_px, side_px),
            dst=pixels[row],
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        if rng.random() < _EMPHASISED_SHARE:
            own = cv2.warpAffine(scenes.labels[index.scene[pick]], warp, (side_px, side_px), flags=cv2.INTER_NEAREST)
            pixels[row] = fade_background(pixels[row], own == index.label[pick])
    recolored = rng.random(size) < _RECOLORED_SHARE
    color = np.where(recolored, -1, index.color[picks])
    return CropBatch(augment(pixels, recolored, rng), torch.from_numpy(color), torch.from_numpy(index.kind[picks]))


def scene_batch(
    scenes: TabletopScenes,
    rng: np.random.Generator,
    size: int,
    height_width: tuple[int, int],
    phrases: int,
    recolor: bool = True,
    more_kinds: float = 0.0,
) -> SceneBatch:
    """Draws ``size`` scenes, zooms into each a little, and draws ``phrases`` phrases for what is then visible.

    Three in ten scenes are recoloured if ``recolor``. ``more_kinds`` is as in ``sample_query``.
    """
    height, width = height_width
    rgb = np.empty((size, height, width, 3), np.uint8)
    color_map = np.empty((size, height, width), np.int64)
    class_maps = np.empty_like(color_map)
    masks = np.empty((size, phrases, height, width), np.float32)
    recolored = (rng.random(size) < _RECOLORED_SHARE) & recolor
    queries = []
    for row, n in enumerate(rng.integers(len(scenes), size=size)):
        window = zoom(scenes.labels[n], rng, height, width)
        rgb[row], labels = window.cut(scenes.rgb[n]), window.cut(scenes.labels[n])
        objects = scenes.objects[n]
        areas = np.bincount(labels.ravel(), minlength=len(objects) + 1)[1:]
        visible = [pair for pair, area in zip(objects, areas, strict=True) if area >= _MIN_ASK_SHARE * labels.size]
        asked = tuple(sample_query(rng, visible, objects, bool(recolored[row]), more_kinds) for _ in range(phrases))
        queries.append(asked)
        colors = np.array([-1] + [-1 if recolored[row] else COLORS.index(c) for c, _ in objects])
        classes = window.cut(class_map(scenes.scene(n), scenes.labels[n])).astype(np.int64)
        if rng.random() < _RETEXTURED_SHARE:
            rgb[row] = retextured(rgb[row], classes == TABLE, rng)
        classes[classes == IGNORED] = -1
        color_map[row], class_maps[row] = colors[labels], classes
        for p, query in enumerate(asked):
            masks[row, p] = _mask_of(query, labels, objects, classes)
    pixels = augment(rgb, recolored, rng)
    return SceneBatch(
        pixels, torch.from_numpy(color_map), torch.from_numpy(class_maps), tuple(queries), torch.from_numpy(masks)
    )


def expression_batch(
    scenes: TabletopScenes,
    rng: np.random.Generator,
    size: int,
    height_width: tuple[int, int],
    phrases: int,
    plain_share: float = 0.35,
    next_to_share: float = 0.0,
) -> ExpressionBatch:
    """Draws ``size`` scenes with ``phrases`` phrases each, most of which relate an object to others.

    A share of ``plain_share`` of the phrases, and all if no relation in a scene is unambiguous, are those of
    ``sample_query``: a colour, a kind or both, present or absent. A share of ``next_to_share`` of the others prefer
    "next to" if it is unambiguous, besides those that draw it by chance, because distances in space are learnt last.
    """
    height, width = height_width
    rgb = np.empty((size, height, width, 3), np.uint8)
    masks = np.empty((size, phrases, height, width), np.float32)
    texts = []
    for row, n in enumerate(rng.integers(len(scenes), size=size)):
        window = zoom(scenes.labels[n], rng, height, width)
        rgb[row], labels = window.cut(scenes.rgb[n]), window.cut(scenes.labels[n])
        objects = scenes.objects[n]
        ground = ground_positions(scenes.scene(n)) * ([-1, 1] if window.mirrored else 1)
        classes = window.cut(class_map(scenes.scene(n), scenes.labels[n]))
        if rng.random() < _RETEXTURED_SHARE:
            rgb[row] = retextured(rgb[row], classes == TABLE, rng)
        seen = seen_objects(labels, objects, ground, _MIN_RELATED_SHARE)
        visible = [(item.color, item.kind) for item in seen]
        asked = []
        for p in range(phrases):
            preferred = "next to" if next_to_share and rng.random() < next_to_share else None
            expression = None if rng.random() < plain_share else sample_expression(rng, seen, preferred)
            if expression is not None:
                asked.append(expression.text)
                masks[row, p] = labels == expression.label
                continue
            query = sample_query(rng, visible, objects, kinds_only=False)
            asked.append(query.text)
            masks[row, p] = _mask_of(query, labels, objects, classes)
        texts.append(tuple(asked))
    pixels = augment(rgb, np.zeros(size, bool), rng)
    return ExpressionBatch(pixels, tuple(texts), torch.from_numpy(masks))


def class_batch(
    scenes: TabletopScenes, rng: np.random.Generator, size: int, height_width: tuple[int, int], recolor: bool = True
) -> ClassBatch:
    """Draws ``size`` scenes with the class of every pixel: a kind of object, the table or the floor."""
    height, width = height_width
    rgb = np.empty((size, height, width, 3), np.uint8)
    labels = np.empty((size, height, width), np.int64)
    recolored = (rng.random(size) < _RECOLORED_SHARE) & recolor
    for row, n in enumerate(rng.integers(len(scenes), size=size)):
        window = zoom(scenes.labels[n], rng, height, width)
        rgb[row], labels[row] = window.cut(scenes.rgb[n]), window.cut(class_map(scenes.scene(n), scenes.labels[n]))
        if rng.random() < _RETEXTURED_SHARE:
            rgb[row] = retextured(rgb[row], labels[row] == TABLE, rng)
    return ClassBatch(augment(rgb, recolored, rng), torch.from_numpy(labels))


def _mask_of(query: Query, labels: np.ndarray, objects: Sequence[Pair], classes: np.ndarray) -> np.ndarray:
    """Returns the mask (H, W) bool of a query from the object labels and the ``class_map``, both (H, W)."""
    if query.kind in SURFACES:
        return classes == SEMANTIC_CLASSES.index(query.kind)
    return np.array([False] + [query.matches(pair) for pair in objects])[labels]
