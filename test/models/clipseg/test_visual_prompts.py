# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from clip_seg_ros.models.clipseg.visual_prompts import (
    MEAN_RGB,
    crop_to_object,
    emphasise,
    fade_background,
    visual_prompt,
)
from clip_seg_ros.models.spec import ExampleStyle
from nearness import assert_near


@pytest.fixture
def masks() -> torch.Tensor:
    """(2, 64, 96): a wide object, and a tall one at the image's lower right corner."""
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, 20:30, 40:80] = True
    masks[1, 34:64, 86:96] = True
    return masks


def test_images_of_a_batch_do_not_mix(pixels: torch.Tensor, masks: torch.Tensor) -> None:
    together = visual_prompt(pixels, masks, 48)
    assert together.shape == (2, 3, 48, 48)
    assert_near(together[1:], visual_prompt(pixels[1:], masks[1:], 48))


def test_the_object_stays_as_it_is(pixels: torch.Tensor, masks: torch.Tensor) -> None:
    emphasised = emphasise(pixels, masks)
    inside = masks[:, None].expand_as(pixels)
    assert_near(emphasised[inside], pixels[inside])
    assert emphasised[~inside].std() < 0.1 * pixels[~inside].std()


def test_blur_keeps_the_brightness(masks: torch.Tensor) -> None:
    flat = torch.full((2, 3, 64, 96), 0.7)
    assert_near(emphasise(flat, masks, blur_sigma=2.0, intensity=1.0), flat)


def test_crop_of_an_image_that_is_not_square(pixels: torch.Tensor, masks: torch.Tensor) -> None:
    # The wide box 10 x 40 grows by 1 and 4 on each side to 12 x 48, which fills the width.
    crop = crop_to_object(pixels, masks, 48)[0]
    assert_near(crop[:, 18:30], pixels[0, :, 19:31, 36:84])
    assert not crop[:, :18].any()
    assert not crop[:, 30:].any()
    # The tall one grows to the left and up alone, because the image ends.
    crop = crop_to_object(pixels, masks, 33)[1]
    assert_near(crop[:, :, 11:22], pixels[1, :, 31:64, 85:96])
    assert not crop[:, :, :11].any()
    assert not crop[:, :, 22:].any()


def test_a_style_without_a_cut_shows_the_whole_image(pixels: torch.Tensor, masks: torch.Tensor) -> None:
    style = ExampleStyle(blur_sigma=1.0, intensity=0.5, margin=None)
    square = pixels[:, :, :, :64]
    shown = visual_prompt(square, masks[:, :, 32:], 64, style)
    assert_near(shown, emphasise(square, masks[:, :, 32:], blur_sigma=1.0, intensity=0.5))
    assert visual_prompt(pixels, masks, 48, style).shape == (2, 3, 48, 48)
    with pytest.raises(ValueError, match="empty"):
        visual_prompt(pixels, masks & (torch.arange(2) < 1)[:, None, None], 48, style)


@pytest.mark.parametrize("wrong", [{"blur_sigma": -1.0}, {"intensity": 1.5}, {"margin": -0.1}])
def test_a_style_is_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
        ExampleStyle(**wrong)


def test_half_precision_is_close(pixels: torch.Tensor, masks: torch.Tensor) -> None:
    half = visual_prompt(pixels.to(torch.bfloat16), masks, 48)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), visual_prompt(pixels, masks, 48), atol=0.05, rtol=0.05)


def test_faults_are_said(pixels: torch.Tensor, masks: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="empty"):
        visual_prompt(pixels, torch.zeros_like(masks), 48)
    with pytest.raises(ValueError, match=r"must be \(2, 64, 96\), got \(2, 96, 64\)"):
        visual_prompt(pixels, masks.transpose(1, 2), 48)
    with pytest.raises(ValueError, match="7x96 pixels is too small"):
        visual_prompt(pixels[:, :, :7], masks[:, 20:27], 48)


def test_fading_an_image_is_emphasising_its_pixels_up_to_rounding() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    rgb[:10] = (255, 0, 128)  # the extremes too, and at the edge
    mask = np.zeros((40, 60), bool)
    mask[5:25, 30:60] = True
    std = np.array([58.395, 57.12, 57.375], np.float32)
    pixels = torch.from_numpy((rgb - MEAN_RGB) / std).permute(2, 0, 1)[None]
    expected = emphasise(pixels, torch.from_numpy(mask)[None])[0].permute(1, 2, 0).numpy() * std + MEAN_RGB
    faded = fade_background(rgb, mask)
    assert faded.dtype == np.uint8
    assert faded.shape == rgb.shape
    assert (faded[mask] == rgb[mask]).all()
    error = np.abs(faded.astype(np.float32) - expected)
    assert error.max() < 1.1, "a grey level, and a tenth of the blurred image's rounding"
    assert np.abs(rgb.astype(np.float32) - expected)[~mask].mean() > 30, "it does fade"


def test_fading_an_rgb_image_is_emphasising_its_normalised_pixels(masks: torch.Tensor) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    mean, std = MEAN_RGB / 255, np.array([0.2, 0.3, 0.4], np.float32)
    pixels = torch.from_numpy(((noise / np.float32(255) - mean) / std).transpose(2, 0, 1))
    emphasised = emphasise(pixels[None], masks[:1])[0].numpy().transpose(1, 2, 0)
    faded = fade_background(noise, masks[0].numpy())
    assert faded.dtype == np.uint8
    assert (faded[masks[0].numpy()] == noise[masks[0].numpy()]).all()
    assert np.abs((emphasised * std + mean) * 255 - faded).max() < 1.2, "rounding"
