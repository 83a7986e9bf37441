# SPDX-License-Identifier: Apache-2.0
"""Takes the regions of one phrase apart where objects touch, by their colours, their shape and their depth.

A model of phrases says where there are cups, not how many. Cups that touch in the image are one connected region, whose
middle lies between them. A small network (``models.separator``) looks at the window of each region and says where the
middles of objects are, and each pixel goes to the object that it votes for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from clip_seg_ros import resources
from clip_seg_ros.models.folding import fold_batch_norms
from clip_seg_ros.models.separator.model import (
    CELLS,
    CHANNELS,
    OFFSET_CELLS,
    WINDOW_PX,
    SeparatorNet,
    load_separator,
)
from clip_seg_ros.pipeline.cell_maps import CellMaps
from clip_seg_ros.pipeline.postprocess import MAX_REGIONS
from clip_seg_ros.pipeline.stream.singles import Singles
from clip_seg_ros.types import CameraFrame, ObjectRegion

FILE = "separator.safetensors"
MARGIN = 0.1
"""What a window shows around a region's box, as a share of the box's longer side."""
DEPTH_REACH = 0.5
"""The difference of depth from the region's median that the network sees as 1, as a share of the window's own size in
metres; it sees at most twice as much."""
LEAST_DEPTHS = 10
"""With fewer valid depths in a window's mask, the depth does not count."""
SURE, SURE_WITHOUT_DEPTH = 0.7, 0.85
"""A region is taken apart only if the network is as sure as this that there are several objects, 0..1. A single object
that is torn apart misleads a robot more than two that are not, and without depth things that the network never saw are
torn more easily: of five kinds of a workshop, 11 % at 0.7 and 4 % at 0.85, and with depth none."""
SINGLE = 0.1
"""A region that holds several objects with at most this probability need not be looked at in each image of a stream."""
PEAK = 0.3
"""The least heat of a middle, 0..1."""
PEAK_CELLS = 2
"""A middle is the hottest cell as far as this around it."""
LEAST_SHARE = 0.03
"""The least share of a region's pixels that an object has."""
SCRAP_SHARE = 0.1
"""A part that touches no other of its object and is smaller than this share of the object's largest goes to the object
that is nearest."""
MAX_WINDOWS = 32
"""The number of regions in an image that are looked at, the largest first."""


@dataclass(frozen=True)
class Window:
    """A square of the image around a region; it may reach beyond the image."""

    left: int
    top: int
    side: int

    @classmethod
    def around(cls, box_px: tuple[int, int, int, int]) -> Window:
        """Returns the window of a box (x_min, y_min, x_max, y_max)."""
        x_min, y_min, x_max, y_max = box_px
        longer = max(x_max - x_min, y_max - y_min)
        side = longer + 2 * (int(np.ceil(MARGIN * longer)) + 2)
        return cls((x_min + x_max - side) // 2, (y_min + y_max - side) // 2, side)

    def cut(
        self, picture: np.ndarray, size: int, beyond: int = cv2.BORDER_REPLICATE, nearest: bool = False
    ) -> np.ndarray:
        """Cuts the window out of a picture (H, W, ...) and resizes it.

        Args:
            picture: The picture.
            size: The side of the result.
            beyond: What lies beyond the picture, as OpenCV's border type; ``BORDER_CONSTANT`` stands for 0.
            nearest: Whether pixels are chosen and not mixed.
        """
        height, width = picture.shape[:2]
        right, bottom = self.left + self.side, self.top + self.side
        inner = picture[max(0, self.top) : min(height, bottom), max(0, self.left) : min(width, right)]
        margins = max(0, -self.top), max(0, bottom - height), max(0, -self.left), max(0, right - width)
        if any(margins):
            inner = cv2.copyMakeBorder(inner, *margins, beyond)
        return cv2.resize(inner, (size, size), interpolation=cv2.INTER_NEAREST if nearest else cv2.INTER_AREA)


def depth_channels(depth_m: np.ndarray, inside: np.ndarray, side_per_m: float) -> np.ndarray:
    """Returns the two channels of a window that tell of depth, (2, h, w) float32; all zero if there is too little.

    Args:
        depth_m: (h, w) float32 metres along the optical axis, not finite or 0 where there is none.
        inside: (h, w) bool, the mask.
        side_per_m: The window's side at a distance of one metre, metres.
    """
    valid = np.isfinite(depth_m) & (depth_m > 0)
    channels = np.zeros((2, *depth_m.shape), np.float32)
    known = depth_m[valid & inside]
    if len(known) < LEAST_DEPTHS:
        return channels
    middle = float(np.median(known))
    steps = (depth_m - middle) / np.float32(DEPTH_REACH * side_per_m * middle)
    np.copyto(channels[0], np.clip(steps, -2.0, 2.0), where=valid)
    channels[1] = valid
    return channels


def window_input(region: ObjectRegion, frame: CameraFrame) -> np.ndarray:
    """Returns what the network sees of a region, (CHANNELS, WINDOW_PX, WINDOW_PX) float32."""
    window = Window.around(region.box_px)
    seen = np.zeros((CHANNELS, WINDOW_PX, WINDOW_PX), np.float32)
    seen[:3] = window.cut(frame.rgb, WINDOW_PX).transpose(2, 0, 1) / np.float32(255)
    # The same cut of the mask alone, whose array begins at the box.
    x_min, y_min = region.box_px[:2]
    own = Window(window.left - x_min, window.top - y_min, window.side)
    seen[3] = own.cut(region.inside.astype(np.float32), WINDOW_PX, cv2.BORDER_CONSTANT)
    if frame.depth_m is not None:
        # Without intrinsics the camera's field of view is taken for 53 degrees.
        focal_px = frame.intrinsics.fx if frame.intrinsics is not None else float(frame.rgb.shape[1])
        depth_m = window.cut(frame.depth_m, WINDOW_PX, nearest=True)
        seen[4:] = depth_channels(depth_m, seen[3] > 0.5, window.side / focal_px)
    return seen


class Separator:
    """Takes regions apart.

    Args:
        net: The network, in evaluation mode. Its norms are folded into its convolutions.
    """

    def __init__(self, net: SeparatorNet) -> None:
        fold_batch_norms(net)
        self._net = net.requires_grad_(False).to(memory_format=torch.channels_last)

    @classmethod
    def load(cls, weights_dir: Path | None = None) -> Separator:
        """Reads the weights in a folder, by default those that come with the package.

        Raises:
            WeightsError: The file is missing or damaged.
            FileNotFoundError: The package's files were not found.
        """
        return cls(load_separator((weights_dir or resources.share_dir() / "weights") / FILE))

    def separate(
        self,
        regions: Sequence[ObjectRegion],
        maps: CellMaps,
        frame: CameraFrame,
        least_px: int = 1,
        singles: Singles | None = None,
    ) -> list[ObjectRegion]:
        """Takes apart the regions that hold several objects.

        Args:
            regions: The regions of one image, without positions in metres.
            maps: The probabilities of their prompts.
            frame: The image, with depth where there is any.
            least_px: The area of the smallest object, pixels.
            singles: What is known of the regions from the images before; ``None`` for a single image.

        Returns:
            The regions that hold one object, as they are, and in place of each other one its objects. A part of them
            belongs to exactly one object; no pixel is lost. If any was taken apart, all are sorted by their scores and
            numbered anew, at most 255.

        Raises:
            ValueError: The image, its depth or its intrinsics are not of the size of the regions.
        """
        self._check(regions, frame)
        known = singles.known(regions) if singles is not None else set()
        looked = [
            index for index, region in enumerate(regions) if region.area_px >= 2 * least_px and index not in known
        ]
        looked = sorted(looked, key=lambda index: -regions[index].area_px)[:MAX_WINDOWS]
        if not looked:
            return list(regions)
        windows = np.stack([window_input(regions[index], frame) for index in looked])
        with torch.inference_mode():
            votes = self._net(torch.from_numpy(windows).contiguous(memory_format=torch.channels_last))
            several = torch.sigmoid(votes.several).numpy()
            heat, offsets = torch.sigmoid(votes.heat).numpy(), votes.offsets.numpy()
        if singles is not None:
            singles.remember(regions[index] for index, share in zip(looked, several) if share <= SINGLE)
        found: dict[int, list[ObjectRegion]] = {}
        has_depth = windows[:, 5].any(axis=(1, 2))
        for row in np.flatnonzero(several > np.where(has_depth, SURE, SURE_WITHOUT_DEPTH)):
            region = regions[looked[row]]
            parts = _parts(region, heat[row], offsets[row], windows[row, 3], least_px)
            if parts is not None:
                found[looked[row]] = _objects(region, parts, maps)
        if not found:
            return list(regions)
        objects = [item for index, region in enumerate(regions) for item in found.get(index, [region])]
        objects = sorted(objects, key=lambda item: -item.score)[:MAX_REGIONS]
        return [replace(item, id=id) for id, item in enumerate(objects, start=1)]

    @staticmethod
    def _check(regions: Sequence[ObjectRegion], frame: CameraFrame) -> None:
        size, lens = frame.rgb.shape[:2], frame.intrinsics
        if lens is not None and (lens.height, lens.width) != size:
            raise ValueError(f"the image is {size[1]}x{size[0]}, its intrinsics are for {lens.width}x{lens.height}")
        for region in regions:
            if region.image_size != size:
                raise ValueError(f"region {region.id} is of an image of {region.image_size}, this has {size}")


def _parts(
    region: ObjectRegion, heat: np.ndarray, offsets: np.ndarray, mask: np.ndarray, least_px: int
) -> np.ndarray | None:
    """Returns the object of each pixel in the region's box, (h, w) int32 from 1, 0 outside; ``None`` for one object.

    Args:
        region: The region.
        heat: (CELLS, CELLS), 0..1.
        offsets: (2, CELLS, CELLS).
        mask: (WINDOW_PX, WINDOW_PX), 0..1, the region in its window.
        least_px: The area of the smallest object, pixels.
    """
    near = cv2.dilate(cv2.resize(mask, (CELLS, CELLS), interpolation=cv2.INTER_AREA), np.ones((3, 3))) > 0.5
    around = np.ones((2 * PEAK_CELLS + 1, 2 * PEAK_CELLS + 1))
    rows, columns = np.nonzero(near & (heat > PEAK) & (heat >= cv2.dilate(heat, around)))
    if len(rows) < 2:
        return None
    votes = _votes(region, offsets)
    least = max(least_px, LEAST_SHARE * region.area_px)
    middles = np.stack([columns, rows], axis=1).astype(np.float32)
    while True:
        squares = np.square(votes[:, None] - middles).sum(axis=2)
        nearest = squares.argmin(axis=1)
        areas = np.bincount(nearest, minlength=len(middles))
        smallest = int(areas.argmin())
        if areas[smallest] >= least:
            break
        if len(middles) == 2:
            return None
        middles = np.delete(middles, smallest, axis=0)
    parts = np.zeros(region.inside.shape, np.int32)
    parts[region.inside] = nearest + 1
    return _without_scraps(parts, len(middles))


def _votes(region: ObjectRegion, offsets: np.ndarray) -> np.ndarray:
    """Returns where each pixel of the region's mask, row by row, sees its object's middle: (N, 2) x, y in cells."""
    window = Window.around(region.box_px)
    x_min, y_min, x_max, y_max = region.box_px
    # Pixel of the box -> cell; the middle of a cell has whole coordinates.
    step = CELLS / window.side
    matrix = np.array([[step, 0, (x_min - window.left + 0.5) * step - 0.5], [0, step, 0]])
    matrix[1, 2] = (y_min - window.top + 0.5) * step - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (x_max - x_min, y_max - y_min)
    votes = OFFSET_CELLS * cv2.warpAffine(
        offsets.transpose(1, 2, 0), matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    votes[..., 0] += matrix[0, 0] * np.arange(size[0], dtype=np.float32) + np.float32(matrix[0, 2])
    votes[..., 1] += (matrix[1, 1] * np.arange(size[1], dtype=np.float32) + np.float32(matrix[1, 2]))[:, None]
    return votes[region.inside]


def _without_scraps(parts: np.ndarray, count: int) -> np.ndarray:
    """Gives small parts that lie apart from the rest of their object to the object that is nearest.

    Args:
        parts: (h, w) int32: 0 = outside, otherwise the number of the object, 1..``count``.
        count: The number of objects.
    """
    scraps = np.zeros(parts.shape, np.bool_)
    for number in range(1, count + 1):
        pieces, labels = cv2.connectedComponents((parts == number).view(np.uint8), connectivity=8)
        if pieces > 2:
            areas = np.bincount(labels.ravel())
            areas[0] = areas[1:].max()
            scraps |= (areas < SCRAP_SHARE * areas[0])[labels]
    if not scraps.any():
        return parts
    kept = np.where(scraps, 0, parts)
    # For each pixel the nearest pixel of an object that is no scrap: labels of zero pixels, in the order of rows.
    _, nearest = cv2.distanceTransformWithLabels(
        (kept == 0).view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    objects = np.concatenate([[0], kept[kept > 0]])
    return np.where(scraps, objects[nearest], parts)


def _objects(region: ObjectRegion, parts: np.ndarray, maps: CellMaps) -> list[ObjectRegion]:
    """Makes objects of the parts (h, w) of a region, each with the mean probability of its own pixels as its score."""
    values = maps.geometry.fine(maps.part((region.prompt,)).values)[0]
    x_min, y_min = region.box_px[:2]
    objects = []
    for number in range(1, int(parts.max()) + 1):
        inside = parts == number
        left, top, width, height = cv2.boundingRect(inside.view(np.uint8))
        if not width:
            continue
        cut = inside[top : top + height, left : left + width].copy()
        rows, columns = np.nonzero(cut)
        box = (x_min + left, y_min + top, x_min + left + width, y_min + top + height)
        rows, columns = rows + box[1], columns + box[0]
        cells = [
            ((places + 0.5) * side / whole).astype(np.int64)
            for places, side, whole in zip((rows, columns), values.shape, region.image_size)
        ]
        objects.append(
            replace(
                region,
                inside=cut,
                box_px=box,
                centroid_px=(float(columns.mean()), float(rows.mean())),
                area_px=len(rows),
                score=float(values[cells[0], cells[1]].mean()),
            )
        )
    return objects
