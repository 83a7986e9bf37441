# SPDX-License-Identifier: Apache-2.0
"""Encodes the images of several cameras in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clip_seg_ros.nodes.camera.intake import TakenImage
from clip_seg_ros.nodes.common.faults import FaultLog

if TYPE_CHECKING:
    from clip_seg_ros.pipeline.predictor import EncodedImage, Predictor


def encode_each(predictor: Predictor, images: Sequence[TakenImage], faults: FaultLog) -> list[EncodedImage | None]:
    """Encodes images; for one that the model cannot take, which is reported, the result is ``None``."""
    if len(images) > 1:
        try:
            together = predictor.encode_batch([image.rgb for image in images])
        except ValueError:
            pass  # one of them cannot be taken; which one, each alone will tell
        else:
            for image in images:
                faults.clear(image.job.camera.source("image"))
            return list(together)
    encoded: list[EncodedImage | None] = []
    for image in images:
        source = image.job.camera.source("image")
        try:
            encoded.append(predictor.encode(image.rgb))
        except ValueError as error:
            faults.report(source, "shape", str(error))
            encoded.append(None)
        else:
            faults.clear(source)
    return encoded
