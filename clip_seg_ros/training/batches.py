"""Batches out of rendered scenes: object crops for the CLIP towers, whole scenes with phrases for the decoder.

Every batch is a function of (seed, stage, step) alone, so that a run that was killed goes on exactly where it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from clip_seg_ros.data.tabletop import TabletopScenes
from clip_seg_ros.sim.scene import COLORS, KINDS
from clip_seg_ros.training.phrases import Query, sample_query

_MIN_CROP_AREA_PX = 80
_MIN_ASK_SHARE = 0.001
"""An object is asked for when it covers at least this share of the picture."""
_RECOLORED_SHARE = 0.3


@dataclass(frozen=True)
class CropIndex:
    """Where the objects are that are large enough to crop, one row each."""

    scene: np.ndarray
    box: np.ndarray
    """(N, 4) x, y, width, height in pixels."""
    color: np.ndarray
    """(N,) index into COLORS."""
    kind: np.ndarray
    """(N,) index into KINDS."""


@dataclass(frozen=True)
class CropBatch:
    pixels: torch.Tensor
    """(B, 3, s, s) float32 in 0..1."""
    color: torch.Tensor
    """(B,) int64 index into COLORS; -1 where the crop was recoloured."""
    kind: torch.Tensor
    """(B,) int64 index into KINDS."""

    def to(self, device: torch.device) -> CropBatch:
        """Returns the batch on ``device``."""
        return replace(self, pixels=self.pixels.to(device), color=self.color.to(device), kind=self.kind.to(device))


@dataclass(frozen=True)
class SceneBatch:
    pixels: torch.Tensor
    """(B, 3, H, W) float32 in 0..1."""
    color_map: torch.Tensor
    """(B, H, W) int64 index into COLORS; -1 = no object, or recoloured."""
    kind_map: torch.Tensor
    """(B, H, W) int64 index into KINDS; -1 = no object."""
    queries: tuple[tuple[Query, ...], ...]
    """P phrases a scene."""
    masks: torch.Tensor
    """(B, P, H, W) float32, 1 where the phrase's objects are."""

    def to(self, device: torch.device) -> SceneBatch:
        """Returns the batch on ``device``."""
        moved = {name: getattr(self, name).to(device) for name in ("pixels", "color_map", "kind_map", "masks")}
        return replace(self, **moved)


def index_crops(scenes: TabletopScenes) -> CropIndex:
    """Finds the box of every object that covers at least ``_MIN_CROP_AREA_PX`` pixels."""
    rows = []
    for n, (labels, objects) in enumerate(zip(scenes.labels, scenes.objects, strict=True)):
        areas = np.bincount(labels.ravel(), minlength=len(objects) + 1)
        for index, (color, kind) in enumerate(objects, start=1):
            if areas[index] >= _MIN_CROP_AREA_PX:
                box = cv2.boundingRect((labels == index).view(np.uint8))
                rows.append((n, *box, COLORS.index(color), KINDS.index(kind)))
    table = np.array(rows, dtype=np.int64)
    return CropIndex(table[:, 0], table[:, 1:5], table[:, 5], table[:, 6])


def crop_batch(
    scenes: TabletopScenes, index: CropIndex, rng: np.random.Generator, size: int, side_px: int
) -> CropBatch:
    """Cuts ``size`` objects out of their scenes in windows of 1 to 2.2 boxes; three in ten are recoloured."""
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
            scenes.rgb[index.scene[pick]], warp, (side_px, side_px), dst=pixels[row],
            flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
    recolored = rng.random(size) < _RECOLORED_SHARE
    color = np.where(recolored, -1, index.color[picks])
    return CropBatch(_augment(pixels, recolored, rng), torch.from_numpy(color), torch.from_numpy(index.kind[picks]))


def scene_batch(
    scenes: TabletopScenes,
    rng: np.random.Generator,
    size: int,
    height_width: tuple[int, int],
    phrases: int,
    recolor: bool = True,
) -> SceneBatch:
    """Draws ``size`` scenes, zooms into each a little and asks ``phrases`` phrases about what is then seen."""
    height, width = height_width
    rgb = np.empty((size, height, width, 3), np.uint8)
    color_map = np.empty((size, height, width), np.int64)
    kind_map = np.empty_like(color_map)
    masks = np.empty((size, phrases, height, width), np.float32)
    recolored = (rng.random(size) < _RECOLORED_SHARE) & recolor
    queries = []
    for row, n in enumerate(rng.integers(len(scenes), size=size)):
        rgb[row], labels = _zoom(scenes.rgb[n], scenes.labels[n], rng, height, width)
        objects = scenes.objects[n]
        areas = np.bincount(labels.ravel(), minlength=len(objects) + 1)[1:]
        visible = [pair for pair, area in zip(objects, areas, strict=True) if area >= _MIN_ASK_SHARE * labels.size]
        asked = tuple(sample_query(rng, visible, objects, bool(recolored[row])) for _ in range(phrases))
        queries.append(asked)
        colors = np.array([-1] + [-1 if recolored[row] else COLORS.index(c) for c, _ in objects])
        kinds = np.array([-1] + [KINDS.index(k) for _, k in objects])
        color_map[row], kind_map[row] = colors[labels], kinds[labels]
        for p, query in enumerate(asked):
            matched = np.array([False] + [query.matches(pair) for pair in objects])
            masks[row, p] = matched[labels]
    pixels = _augment(rgb, recolored, rng)
    return SceneBatch(
        pixels, torch.from_numpy(color_map), torch.from_numpy(kind_map), tuple(queries), torch.from_numpy(masks)
    )


def _zoom(
    rgb: np.ndarray, labels: np.ndarray, rng: np.random.Generator, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """A window around one of the objects, up to 1.15 times as large as rendered, sometimes mirrored."""
    full_height, full_width = labels.shape
    scale = rng.uniform(max(height / full_height, width / full_width), 1.15)
    h, w = min(round(height / scale), full_height), min(round(width / scale), full_width)
    rows, columns = np.nonzero(labels[::4, ::4])
    pick = int(rng.integers(len(rows))) if len(rows) else None
    center = np.array([rows[pick], columns[pick]]) * 4 if pick is not None else np.array(labels.shape) / 2
    corner = center - np.array([h, w]) * rng.uniform(0.15, 0.85, 2)
    top, left = np.clip(corner, 0, [full_height - h, full_width - w]).astype(int)
    window = (slice(top, top + h), slice(left, left + w))
    shrink = cv2.INTER_AREA if h > height else cv2.INTER_LINEAR
    rgb = cv2.resize(rgb[window], (width, height), interpolation=shrink)
    labels = cv2.resize(labels[window], (width, height), interpolation=cv2.INTER_NEAREST)
    if rng.random() < 0.5:
        rgb, labels = rgb[:, ::-1], labels[:, ::-1]
    return rgb, labels


def _augment(rgb: np.ndarray, recolored: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in 0..1, with other light, noise, and other colours where asked."""
    pixels = rgb.astype(np.float32) / 255.0
    size = len(pixels)
    for row in np.flatnonzero(recolored):
        if rng.random() < 0.25:
            pixels[row] = pixels[row].mean(axis=-1, keepdims=True)
        else:
            pixels[row] = np.clip(pixels[row] @ _hue_rotation(rng.uniform(0.15, 0.85)).T, 0, 1)
    gain = rng.uniform(0.78, 1.22, (size, 1, 1, 1)) * rng.uniform(0.95, 1.05, (size, 1, 1, 3))
    pixels = np.clip(pixels * gain.astype(np.float32), 0, 1)
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    noise = torch.from_numpy(rng.uniform(0.0, 0.03, (size, 1, 1, 1)).astype(np.float32))
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    return (tensor + noise * torch.randn(tensor.shape, generator=generator)).clamp_(0, 1)


def _hue_rotation(turn: float) -> np.ndarray:
    """(3, 3) rotation of RGB about the grey axis by ``turn`` of a full circle (Rodrigues' formula)."""
    c, s = np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return (c * np.eye(3) + s * cross + (1 - c) * np.outer(axis, axis)).astype(np.float32)
