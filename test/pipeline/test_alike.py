# SPDX-License-Identifier: Apache-2.0
"""Models that take no boxes as examples say so; ``test/models/sam3`` tries the one that does."""

from __future__ import annotations

import numpy as np
import pytest

from clip_seg_ros.api import Predictor, instances_like
from clip_seg_ros.zoo.factory import build_segmenter


@pytest.mark.parametrize("name", ["clipseg-pocket", "denseclip-instances-pocket"])
def test_other_models_take_no_boxes(name: str) -> None:
    predictor = Predictor.from_model(build_segmenter(name), "cpu")
    encoded = predictor.encode(np.zeros((64, 96, 3), np.uint8))
    with pytest.raises(
        ValueError, match=f"{name} takes no boxes as examples: to find things that are alike, use SAM 3"
    ):
        instances_like(predictor, encoded, [(5, 5, 20, 20)])
