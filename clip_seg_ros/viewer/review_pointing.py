# SPDX-License-Identifier: Apache-2.0
"""Better masks for the review: the thing at a point or in a box of a picture, by the model that found the others."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Literal

import numpy as np

from clip_seg_ros.annotation.answers import FRAME
from clip_seg_ros.models.checkpoints import WeightsError
from clip_seg_ros.pipeline.predictor import EncodedImage, Predictor
from clip_seg_ros.types import CameraFrame, ObjectRegion
from clip_seg_ros.viewer.library_pointing import region_at
from clip_seg_ros.viewer.source import Refused
from clip_seg_ros.zoo.factory import full_name

How = Literal["new", "add", "cut"]


class MaskMaker:
    """Finds masks with a model that is loaded when it is first needed; any thread may use it.

    Args:
        model: A name, the path of a weight file, or "auto".
        device: Device of the model.
    """

    def __init__(self, model: str, device: str = "auto") -> None:
        self._model, self._device = model, device
        self._lock = threading.Lock()
        self._predictor: Predictor | None = None
        self._encoded: tuple[int, EncodedImage] | None = None

    def region(self, image: int, rgb: np.ndarray, spot_px: Sequence[float]) -> ObjectRegion:
        """Returns the thing at a point (x, y), or in a box (x_min, y_min, x_max, y_max).

        Args:
            image: The number of the image, which is encoded once if it is asked for again.
            rgb: (H, W, 3) uint8, the image.
            spot_px: The spot.

        Raises:
            Refused: Nothing is there, the spot is outside, or the model cannot be had.
        """
        try:
            with self._lock:
                if self._predictor is None:
                    self._predictor = Predictor.from_name(full_name(self._model), self._device, engine="eager")
                if self._encoded is None or self._encoded[0] != image:
                    self._encoded = (image, self._predictor.encode(rgb))
                return region_at(self._predictor, self._encoded[1], CameraFrame(rgb, 0, FRAME), spot_px)
        except (ValueError, WeightsError) as error:
            raise Refused(str(error)) from error


def joined(region: ObjectRegion, mask: np.ndarray | None, how: How) -> ObjectRegion:
    """Returns what follows from a region and the mask that the object has.

    Args:
        region: What somebody pointed at.
        mask: (H, W) bool, the mask of the object; ``None`` if it has none.
        how: "new" takes the region instead of the mask, "add" both, and "cut" the mask without the region.

    Raises:
        Refused: Nothing would be left.
    """
    if how == "new" or mask is None:
        return region
    both = mask | region.mask if how == "add" else mask & ~region.mask
    if not both.any():
        raise Refused("nothing would be left of the object: reject it instead")
    return ObjectRegion.of_mask(region.prompt, region.id, region.score, both)
