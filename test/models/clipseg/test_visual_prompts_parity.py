# SPDX-License-Identifier: Apache-2.0
"""Visual prompts against images recorded from the authors' implementation (see test/data/golden)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clip_seg_ros.models.clipseg.visual_prompts import crop_to_object, emphasise, visual_prompt

# The authors subtract this from every pixel where they do not crop; nothing depends on it.
SHIFT = 0.01
SIZE = 48


@pytest.mark.parametrize(
    ("key", "sigma", "intensity", "shift"),
    [
        ("highlight", 0.0, 0.15, 0.0),
        ("overlay", 0.0, 0.0, 0.0),
        ("blur_highlight", 1.0, 0.5, SHIFT),
        ("blur3_highlight01", 3.0, 0.1, SHIFT),
    ],
)
def test_background(golden: Callable, key: str, sigma: float, intensity: float, shift: float) -> None:
    recording = golden("clipseg_visual_prompt", relative=3e-6)
    pixels, masks = recording["in.image_normalised"][None], recording["in.mask"][None]
    emphasised = emphasise(pixels, masks, blur_sigma=sigma, intensity=intensity)
    recording.check(emphasised[0] - shift, f"out.{key}")


def test_crop(golden: Callable) -> None:
    recording = golden("clipseg_visual_prompt", relative=3e-6)
    pixels, masks = recording["in.image_normalised"][None], recording["in.mask"][None]
    # What the authors call a crop blurs a little, too.
    blurred = emphasise(pixels, masks, blur_sigma=1.0, intensity=1.0)
    recording.check(crop_to_object(blurred, masks, SIZE)[0], "out.crop")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_the_best_is_the_default(golden: Callable, dtype: torch.dtype) -> None:
    recording = golden("clipseg_visual_prompt", relative=3e-6)
    pixels, masks = recording["in.image_normalised"][None], recording["in.mask"][None].to(dtype)
    recording.check(visual_prompt(pixels, masks, SIZE)[0], "out.crop_blur_highlight")
